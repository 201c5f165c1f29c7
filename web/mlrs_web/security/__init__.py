"""Who may see pages: allowed hosts, headers, sign-in, and where the dashboard may listen."""
