"""The evidence as one table: that it passes, and that each part of it would not if something were wrong."""

import dataclasses
import io
import math

import pytest
from rich.console import Console

from fireprop import certify, external, parity, verify
from fireprop.engine import graph
from fireprop.verify import VerifyReport, VerifyRow


@pytest.fixture(scope="module")
def report():
    return verify.verify(networks=5, crossings=1000)


@pytest.mark.slow
def test_all_evidence_holds(report):
    assert report.passed, report
    assert len(report.rows) > 15
    assert {row.check for row in report.rows} >= {"crossings missed", "gradients of mpmath", "spike times of nest"}


@pytest.mark.slow
def test_each_check_is_announced_before_it_starts():
    names = []
    verify.verify(networks=1, crossings=1, on_progress=names.append)
    assert names == ["other programs", "gradients", "crossings", "identities", "what a step changes"]


def test_a_row_that_exceeds_its_tolerance_fails_the_report_and_both_tables_say_so():
    good, bad = VerifyRow("good", "3 cases", 1e-9, 1e-6), VerifyRow("bad", "1 case", math.inf, 0)
    assert VerifyReport((good,)).passed
    report = VerifyReport((good, bad))
    assert not report.passed
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report)
    for text in (repr(report), console.export_text()):
        assert "1.0e-09" in text
        assert "FAILED" in text


@pytest.mark.slow
def test_a_worse_parity_a_lost_bit_and_a_missed_crossing_are_seen(monkeypatch):
    rows = parity.check_all()
    worse = [dataclasses.replace(row, time_error=1.0) if row.source == "nest" else row for row in rows]
    monkeypatch.setattr(verify, "check_all", lambda: worse)
    assert [row.check for row in verify._parity() if not row.passed] == ["spike times of nest"]

    certificate = dataclasses.replace(certify.certify_random_networks(1)[0], n_missed=1)
    monkeypatch.setattr(verify, "certify_random_networks", lambda *_, **__: [certificate])
    assert [row.check for row in verify._crossings(1, 0) if not row.passed] == ["crossings missed"]

    adjoint = graph.adjoint

    def off(run, *args, **options):
        weights, thresholds, times = adjoint(run, *args, **options)
        return [1.0001 * weight for weight in weights], thresholds, times

    monkeypatch.setattr(graph, "adjoint", off)
    failed = [row.check for row in verify._gradients(5, 0) if not row.passed]
    assert failed == ["gradient by weight against differences", "gradient by recurrent_weight against differences"]

    def replay_later(net, inputs, record, *, t_end):
        return external.Replay(net.record(inputs.shift(1e-13), t_end=t_end), ())

    monkeypatch.setattr(external, "replay", replay_later)
    assert [row.check for row in verify._identities(5, 0) if not row.passed] == ["replayed spikes give other bits"]


@pytest.mark.parametrize(("options", "message"), [({"networks": 0}, "networks = 0"), ({"crossings": 1.5}, "crossings")])
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        verify.verify(**options)
