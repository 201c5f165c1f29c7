"""The record of a run: in buckets, and as a file."""

from __future__ import annotations

import pytest

from mlrs_web.routes.record import file_name
from tests.support.dashboard import Dashboard
from tests.web.conftest import STEPS


def test_a_record_in_buckets(dashboard: Dashboard) -> None:
    """A record has a bucket for every few steps, with the extremes and the mean of each."""
    record = dashboard.get("/api/record", id="a/done", buckets=10).json
    width = record["steps_per_bucket"]
    assert (record["first_step"], record["end_step"], width, record["has_more"]) == (0, STEPS, 4, False)
    losses = [2.0 / (1 + step) for step in range(STEPS)]
    assert record["loss"]["max"] == pytest.approx(losses[::width])
    assert record["loss"]["min"] == pytest.approx(losses[width - 1 :: width])
    assert len(record["lr"]["mean"]) == len(record["held"]) == STEPS // width
    assert record["run"]["id"] == "a/done"


def test_a_part_of_a_record(dashboard: Dashboard) -> None:
    """A zoom gives the steps of the part, one by one where there are few."""
    record = dashboard.get("/api/record", **{"id": "a/done", "from": 10, "to": 14}).json
    assert (record["first_step"], record["end_step"], record["steps_per_bucket"]) == (10, 14, 1)
    assert record["loss"]["mean"] == pytest.approx([2.0 / (1 + step) for step in range(10, 14)])


def test_held_steps_are_counted_and_their_losses_null(dashboard: Dashboard) -> None:
    """Buckets without a finite loss have none, and say how many steps were held."""
    record = dashboard.get("/api/record", id="held").json
    assert record["loss"]["mean"] == [None] * 12
    assert record["held"] == [1] * 12
    assert all(rate >= 0.001 for rate in record["lr"]["mean"])


def test_a_record_goes_on_from_its_cursor(dashboard: Dashboard) -> None:
    """A cursor leads on from where a record ended; the last bucket comes again."""
    record = dashboard.get("/api/record", id="a/done").json
    again = dashboard.get("/api/record", id="a/done", cursor=record["cursor"]).json
    assert again["first_step"] == STEPS - 1
    assert again["loss"]["mean"] == record["loss"]["mean"][-1:]


def test_a_record_as_a_file(dashboard: Dashboard) -> None:
    """The file has every step with every digit, as the daemon recorded it."""
    answer = dashboard.get("/api/export", id="a/done")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="a_done.csv"'
    header, *lines = answer.body.decode().splitlines()
    assert header == "step,loss,learning_rate,reason"
    rows = [line.split(",") for line in lines]
    assert [(int(row[0]), float(row[1])) for row in rows] == [
        (step, 2.0 / (1 + step)) for step in range(STEPS)
    ]
    assert {row[3] for row in rows} == {"fresh"}
    assert dashboard.get("/api/export", id="none").status == 404


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("a/b:c", "a_b_c.csv"),
        ("../../etc/passwd", "etc_passwd.csv"),
        ('x"; filename="evil', "x_filename_evil.csv"),
        ("x\r\nset-cookie: a", "x_set-cookie_a.csv"),
        ("/", "run.csv"),
        ("x" * 300, "x" * 100 + ".csv"),
    ],
)
def test_names_of_files(run_id: str, name: str) -> None:
    """Whatever a run is called, its file has a plain name."""
    assert file_name(run_id) == name
