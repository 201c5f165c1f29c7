"""What each path answers.

| module | paths |
|---|---|
| `pages` | the page and its files |
| `session` | `/api/session`: sign-in, and which daemon it is |
| `runs` | `/api/runs`, `/api/samples`, `/api/run` |
| `record` | `/api/record`, `/api/export` |
| `tasks`, `models`, `health` | what their names say |
| `streams` | `/api/live`, `/api/live-runs`, `/api/live-health`: server-sent events |
| `asking` | what they share: the daemon of a request, and the values of its query |
| `answers` | answers as JSON, and failures as answers |
"""
