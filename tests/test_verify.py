"""The evidence as one table: that it passes, and that each part of it would not if something were wrong."""

import dataclasses
import io
import math
import re
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from fireprop import Spikes, certify, engine, external, ift, validity
from fireprop.evidence import parity, verify
from fireprop.evidence.verify import VerifyReport, VerifyRow
from fireprop.gradcheck.report import ROADS, GradcheckReport, GradcheckRow

ROWS = [
    "spike times of brian2",
    "spike times of eventax",
    "gradients of eventax",
    "spike times of jaxsnn",
    "gradients of jaxsnn",
    "spike times of mpmath",
    "gradients of mpmath",
    "spike times of nest",
    "gradient by weight against differences",
    "gradient by v_threshold against differences",
    "gradient by input times against differences",
    "gradient by recurrent_weight against differences",
    "crossings missed",
    "spikes without a crossing",
    "gaps that cannot be decided",
    "a spike's derivatives by all input times sum to 1",
    "replayed spikes give other bits",
    "a chain run as a graph gives other bits",
    "a sample in a batch gives other bits",
    "two threads give other bits",
    "distance to a change of spike counts",
]


@pytest.fixture(scope="module")
def report():
    return verify.verify(networks=5, crossings=1000)


@pytest.mark.slow
def test_all_evidence_holds(report):
    assert report.passed, report
    assert [row.check for row in report.rows] == ROWS


@pytest.mark.slow
def test_each_check_is_announced_before_it_starts():
    names = []
    verify.verify(networks=1, crossings=1, on_progress=names.append)
    assert names == ["other programs", "gradients", "crossings", "identities", "what a step changes"]


@pytest.mark.parametrize("worst", [1.0, math.inf, math.nan])
def test_a_row_that_exceeds_its_tolerance_fails_the_report_and_both_tables_say_so(worst):
    good, bad = VerifyRow("good", "3 cases", 1e-9, 1e-6), VerifyRow("bad", "1 case", worst, 0)
    assert VerifyReport((good,)).passed
    report = VerifyReport((good, bad))
    assert not report.passed
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report)
    for text in (repr(report), console.export_text()):
        assert "1.0e-09" in text
        assert re.search(f"bad +1 case +{worst:g} +0 +FAILED", text)


# --- every row can fail; what verify calls is replaced by what is wrong in one way ---


def failed(rows):
    return {row.check for row in rows if not row.passed}


NEST = parity.ParityRow("nest", "a", 3, 1e-9, None, 1e-6, None)
EVENTAX = parity.ParityRow("eventax", "a", 3, 1e-15, 1e-13, 1e-12, 1e-12)


@pytest.mark.parametrize("error", [1e-3, math.inf, math.nan])
@pytest.mark.parametrize(
    ("source", "field", "name"),
    [
        (NEST, "time_error", "spike times of nest"),
        (EVENTAX, "time_error", "spike times of eventax"),
        (EVENTAX, "gradient_error", "gradients of eventax"),
    ],
)
def test_another_program_that_differs_in_one_network_is_seen(monkeypatch, source, field, name, error):
    monkeypatch.setattr(verify, "check_all", lambda: [NEST, EVENTAX])
    assert failed(verify._parity()) == set()
    worse = dataclasses.replace(source, **{field: error})
    for found in ([source, worse], [worse, source]):
        monkeypatch.setattr(verify, "check_all", lambda found=found: found)
        (row,) = [row for row in verify._parity() if not row.passed]
        assert row.check == name
        assert str(row.worst) == str(error)


GOOD = GradcheckRow("layer 0 weight", 6, 2, 2, 1e-9, 1e-9, 1e-9, 1e-9, 1e-10, 1e-6)
UNJUDGED = GradcheckRow("layer 0 weight", 6, 6, 6, *[math.nan] * 5, 1e-6)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("error", [1e-5, math.inf, math.nan])
def test_a_gradient_that_is_wrong_or_nan_by_one_road_in_one_network_is_seen(monkeypatch, road, error):
    bad = dataclasses.replace(GOOD, **{f"worst_{road}": error})
    other = dataclasses.replace(GOOD, name="layer 0 v_threshold")
    for rows in ((GOOD, other), (GOOD, bad, other), (bad, GOOD, other)):
        monkeypatch.setattr(verify, "check_random_networks", lambda *_, rows=rows, **__: [GradcheckReport(rows, 9)])
        wanted = {"gradient by weight against differences"} if bad in rows else set()
        assert failed(verify._gradients(1, 0)) == wanted


@pytest.mark.parametrize("rows", [(UNJUDGED,), (dataclasses.replace(GOOD, worst_explicit=None),)])
def test_a_kind_or_a_road_of_which_nothing_was_judged_is_no_evidence(monkeypatch, rows):
    monkeypatch.setattr(verify, "check_random_networks", lambda *_, **__: [GradcheckReport(rows, 9)])
    (row,) = verify._gradients(1, 0)
    assert (row.worst, row.passed) == (math.inf, False)
    with_others = (*rows, GOOD)
    monkeypatch.setattr(verify, "check_random_networks", lambda *_, **__: [GradcheckReport(with_others, 9)])
    assert failed(verify._gradients(1, 0)) == set()


def test_constants_have_two_roads_and_both_must_be_judged(monkeypatch):
    two = dataclasses.replace(GOOD, name="layer 0 delay", worst_explicit=None, worst_propagation=None)
    for row, passed in ((two, True), (dataclasses.replace(two, worst_forward=1e-5), False)):
        monkeypatch.setattr(verify, "check_random_networks", lambda *_, row=row, **__: [GradcheckReport((row,), 9)])
        (found,) = verify._gradients(1, 0)
        assert (found.check, found.passed) == ("gradient by delay against differences", passed)


@pytest.mark.white_box
@pytest.mark.slow
def test_an_adjoint_that_is_off_is_seen(monkeypatch):
    monkeypatch.setattr(engine.graph.Run, "adjoint", off(engine.graph.Run.adjoint, 1.0001))
    names = {"gradient by weight against differences", "gradient by recurrent_weight against differences"}
    assert failed(verify._gradients(5, 0)) == names


@pytest.mark.parametrize(
    ("count", "name"),
    [
        ("n_missed", "crossings missed"),
        ("n_false", "spikes without a crossing"),
        ("n_undecided", "gaps that cannot be decided"),
    ],
)
def test_a_crossing_that_is_missed_false_or_undecided_is_seen(monkeypatch, count, name):
    good = certify.Certificate(3, 1, 9, 4, 0, 0, 0, 1e-16, 0.1, 0.0, None, None)
    for certificates in ([good], [dataclasses.replace(good, **{count: 1}), good]):
        monkeypatch.setattr(verify, "certify_random_networks", lambda *_, found=certificates, **__: found)
        assert failed(verify._crossings(1, 0)) == ({name} if len(certificates) > 1 else set())


def off(adjoint, factor, when=lambda run: True):
    """An adjoint whose gradients of weights are off in some runs."""

    def wrong(run, *args, **options):
        found = adjoint(run, *args, **options)
        return found._replace(weights=[weight * (factor if when(run) else 1.0) for weight in found.weights])

    return wrong


def late(simulate, when=lambda t_end: True):
    """A simulator whose inputs come late, by an ulp or a few, in some runs."""

    def wrong(*args, **options):
        *net, times, units, offsets, t_end = args
        return simulate(*net, times + 1e-15 * when(t_end), units, offsets, t_end, **options)

    return wrong


def other_shift(factor):
    forward_propagation = ift.forward_propagation

    def wrong(*args, **options):
        jacobian = forward_propagation(*args, **options)
        by_times = jacobian.by[ift.INPUT_TIMES].clone()
        by_times[-1, -1] *= factor
        return dataclasses.replace(jacobian, by={ift.INPUT_TIMES: by_times})

    return wrong


def replay_later(net, inputs, record, *, t_end):
    return external.Replay(net.record(inputs.shift(1e-13), t_end=t_end), ())


SHIFT, REPLAY, GRAPH, BATCH, THREADS = (
    "a spike's derivatives by all input times sum to 1",
    "replayed spikes give other bits",
    "a chain run as a graph gives other bits",
    "a sample in a batch gives other bits",
    "two threads give other bits",
)
ULP = 1.0 + 2.0**-52


@pytest.mark.white_box
@pytest.mark.parametrize(
    ("owner", "name", "wrong", "rows"),
    [
        (ift, "forward_propagation", lambda: other_shift(2.0), {SHIFT}),
        (ift, "forward_propagation", lambda: other_shift(math.nan), {SHIFT}),
        (external, "replay", lambda: replay_later, {REPLAY}),
        (engine.graph.Engine, "simulate", lambda: late(engine.graph.Engine.simulate), {GRAPH}),
        # A replay is a graph, too.
        (engine.graph.Run, "adjoint", lambda: off(engine.graph.Run.adjoint, ULP), {GRAPH, REPLAY}),
        (
            engine.chain.Engine,
            "simulate",
            lambda: late(engine.chain.Engine.simulate, lambda t_end: t_end.size > 1),
            {BATCH},
        ),
        (
            engine.chain.Run,
            "adjoint",
            lambda: off(engine.chain.Run.adjoint, ULP, lambda run: run.t_known.size > 1),
            {BATCH},
        ),
        (
            engine.chain.Run,
            "adjoint",
            lambda: off(engine.chain.Run.adjoint, ULP, lambda _: engine.get_num_threads() == 2),
            {THREADS},
        ),
    ],
)
def test_an_identity_that_does_not_hold_is_seen(monkeypatch, owner, name, wrong, rows):
    kept = engine.get_num_threads()
    engine.set_num_threads(1)
    try:
        assert failed(verify._identities(1, 0)) == set()
        monkeypatch.setattr(owner, name, wrong())
        assert failed(verify._identities(1, 0)) == rows
    finally:
        engine.set_num_threads(kept)


def test_a_nan_of_a_later_network_is_seen(monkeypatch):
    errors = iter([1e-15, math.nan])
    monkeypatch.setattr(verify, "_shift_error", lambda *_: next(errors))
    assert failed(verify._identities(2, 0)) == {SHIFT}


def test_spikes_of_other_units_and_gradients_of_other_bits_differ():
    times, offsets = [0.1, 0.2], [0, 2]
    spikes, swapped = (Spikes(times, units, offsets, n_units=2) for units in ([0, 1], [1, 0]))
    one = [torch.ones(2)]
    assert not verify._differ(([spikes], one), ([spikes], one))
    assert verify._differ(([spikes], one), ([swapped], one))
    assert verify._differ(([spikes], one), ([spikes], [torch.tensor([1.0, 1.0 + 2.0**-23])]))


@pytest.mark.parametrize("factor", [1.1, math.nan])
def test_a_reach_that_is_wrong_is_seen(monkeypatch, factor):
    validity_report = validity.validity_report

    def wrong(*args, **options):
        return SimpleNamespace(reach=validity_report(*args, **options).reach * factor)

    assert failed(verify._reaches(1, 0)) == set()
    monkeypatch.setattr(validity, "validity_report", wrong)
    (row,) = verify._reaches(2, 0)
    assert not row.passed
    assert math.isnan(row.worst) == math.isnan(factor)


def test_reaches_of_which_none_was_found_are_no_evidence(monkeypatch):
    monkeypatch.setattr(validity, "measure_reach", lambda *_, upto, **__: upto)
    (row,) = verify._reaches(2, 0)
    assert (row.cases, row.worst, row.passed) == ("0 networks", math.inf, False)


@pytest.mark.parametrize(("options", "message"), [({"networks": 0}, "networks = 0"), ({"crossings": 1.5}, "crossings")])
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        verify.verify(**options)
