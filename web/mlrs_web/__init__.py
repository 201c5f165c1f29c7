"""The dashboard: pages in the browser about runs, tasks, models and the daemon's health.

A client of the contract like any other: it imports the public client (`mlrs`), Starlette and uvicorn, and is
a process of its own, so that no page can slow advice. It changes nothing in the daemon.

| folder | responsibility |
|---|---|
| `server.py` | the process: where it listens, what it prints, how it ends |
| `app.py` | wiring of the parts: routes and security |
| `routes/` | what each path answers |
| `live/` | server-sent events: one poll of the daemon, shared by all pages that want the same |
| `daemons/` | connections to the daemon, one for each token; answers that are kept for a while |
| `demo/` | recorded runs, and the daemon that serves them or another folder of data |
| `security/` | allowed hosts, headers, sign-in, where the dashboard may listen |
| `views/` | values of the client as plain JSON |
| `settings.py` | the settings and bounds |
| `static/` | the page: HTML, CSS and ES modules |
"""
