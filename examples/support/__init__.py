"""What the examples share: data, arguments, reports, and the schedules that advice is compared with."""
