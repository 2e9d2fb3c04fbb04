"""Who gets a connection, who waits, who is refused: fair between callers and metrics, and never in vain."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.stored_sql.admission import KNOWN_METRICS, LONGEST_RETRY_S, SLOW_S, Admission
from service.database.stored_sql.waiters import INTERVAL_S, TARGET_S, Place
from service.errors import Busy

WAIT_S = 2.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Desk:
    """An admission with a clock, and the places that are taken."""

    def __init__(self, places=8, queue_limit=128, *, sheds=True):
        self.clock = Clock()
        self.admission = Admission(
            places, queue_limit=queue_limit, wait_s=WAIT_S, clock=self.clock, sheds=sheds
        )
        self.taken = []
        self.pushed_out = []

    def ask(self, caller="ann", metric="m"):
        """Take a place or queue; None for who is refused."""
        place = Place(caller, metric)
        if self.admission.take(place):
            self.taken.append(place)
            return place
        try:
            if (out := self.admission.wait(place)) is not None:
                self.pushed_out.append(out)
        except Busy:
            return None
        return place

    def end(self, place=None):
        """End a statement, and give what is free to the next in turn."""
        place = place or self.taken[0]
        self.taken.remove(place)
        self.admission.give_back(place)
        granted = []
        while (each := self.admission.grant()) is not None:
            granted.append(each)
        self.taken += granted
        return granted

    def run(self, seconds, metric="m"):
        """One statement of the metric, alone, that takes so long."""
        place = self.ask("somebody", metric)
        assert place in self.taken
        self.clock.now += seconds
        self.end(place)

    def held(self, metric):
        return sum(place.metric == metric for place in self.taken)


def test_waiting_callers_take_turns():
    desk = Desk(places=1)
    desk.ask()
    waiting = [desk.ask(caller) for caller in ("hog", "hog", "hog", "bob", "eve", "hog")]
    order = [desk.end()[0] for _ in waiting]
    assert [place.caller for place in order] == ["hog", "bob", "eve", "hog", "hog", "hog"]
    assert order[0] is waiting[0]


def test_the_metrics_of_one_caller_take_turns():
    desk = Desk(places=1)
    desk.ask()
    for metric in ("slow", "slow", "slow", "quick"):
        desk.ask(metric=metric)
    assert [desk.end()[0].metric for _ in range(4)] == ["slow", "quick", "slow", "slow"]


def test_a_slow_metric_holds_half_the_places():
    desk = Desk()
    desk.run(SLOW_S, "slow")
    for _ in range(20):
        desk.ask(metric="slow")
    assert desk.held("slow") == 4
    assert desk.ask(metric="another") in desk.taken


def test_an_unknown_metric_counts_as_slow_until_it_has_run():
    desk = Desk()
    for _ in range(20):
        desk.ask(metric="new")
    assert desk.held("new") == 4
    desk.clock.now += SLOW_S / 2
    desk.end()
    assert desk.held("new") == 7


def test_slow_metrics_together_leave_places_to_others():
    desk = Desk()
    for metric in "abcdefgh":
        desk.run(SLOW_S, metric)
    desk.run(0.001, "quick")
    for metric in "abcdefgh":
        desk.ask(metric=metric)
    assert len(desk.taken) == 6
    assert desk.ask(metric="new") in desk.taken
    assert desk.ask(metric="newer") not in desk.taken
    assert desk.ask(metric="quick") in desk.taken


def test_a_quick_metric_leaves_one_place():
    desk = Desk()
    desk.run(0.001)
    for _ in range(20):
        desk.ask()
    assert desk.held("m") == 7
    assert desk.ask(metric="another") in desk.taken


@pytest.mark.parametrize("places", [1, 2, 3])
def test_few_places_are_of_use_to_every_metric(places):
    desk = Desk(places)
    assert desk.ask() in desk.taken
    assert desk.end() == []
    desk.run(5.0)
    assert desk.ask() in desk.taken


def test_statements_of_no_metric_have_no_limit_of_places():
    desk = Desk()
    for _ in range(8):
        desk.ask(metric=None)
    assert len(desk.taken) == 8


def test_past_the_queue_is_refused():
    desk = Desk(places=1, queue_limit=3)
    desk.ask()
    assert all(desk.ask() for _ in range(3))
    assert desk.ask() is None
    assert desk.pushed_out == []


def test_past_the_queue_the_caller_with_the_most_gives_way():
    desk = Desk(places=1, queue_limit=4)
    desk.ask()
    hogs = [desk.ask("hog") for _ in range(4)]
    assert desk.ask("bob")
    assert desk.pushed_out == [hogs[3]]
    assert desk.ask("bob")
    assert desk.pushed_out == [hogs[3], hogs[2]]
    assert desk.ask("bob") is None, "both have two"
    assert desk.ask("eve"), "one of the two gives way to who has none"


def test_past_the_queue_the_metric_with_the_most_gives_way_to_another_of_the_same_caller():
    desk = Desk(places=1, queue_limit=3)
    desk.ask()
    slow = [desk.ask(metric="slow") for _ in range(3)]
    assert desk.ask(metric="quick")
    assert desk.pushed_out == [slow[2]]
    assert desk.ask(metric="slow") is None


def test_a_burst_that_is_served_in_time_is_not_refused():
    desk = Desk()
    desk.run(0.09)
    waiting = [desk.ask() for _ in range(100)]
    while desk.admission.waiting:
        desk.clock.now += 0.09
        for place in tuple(desk.taken):
            desk.end(place)
        assert list(desk.admission.shed()) == []
    assert all(waiting)


def test_who_would_wait_in_vain_is_told_early():
    desk = Desk()
    for _ in range(104):
        desk.ask()
    desk.clock.now += INTERVAL_S
    for place in tuple(desk.taken):
        desk.end(place)
    shed = list(desk.admission.shed())
    assert len(shed) > 60
    assert desk.admission.waiting == 104 - 4 - 4 - len(shed)
    left = desk.end(desk.taken[0])
    assert len(left) == 1
    assert {problem.headers["Retry-After"] for _, problem in shed} <= {
        str(seconds) for seconds in range(1, LONGEST_RETRY_S + 1)
    }


def test_a_crowd_of_a_metric_that_was_slow_is_refused_at_once_and_not_after_its_patience():
    desk = Desk()
    for _ in range(2):
        desk.run(0.5)
    asked = [desk.ask() for _ in range(300)]
    served = [place for place in asked if place is not None]
    assert len(desk.taken) == 4
    assert len(served) == 4 + WAIT_S / (0.5 / 4)  # four places give so many within the patience
    for _ in range(4):
        desk.clock.now += 0.5
        for place in [*desk.taken]:
            desk.end(place)
    assert not desk.admission.waiting, "all who were let in were served in time"


@pytest.mark.parametrize("runs", [(), (5.0,), (5.0, 0.12), (0.12, 5.0)], ids=str)
def test_one_slow_run_says_nothing_of_the_next(runs):
    desk = Desk()
    for seconds in runs:
        desk.run(seconds)
    assert all(desk.ask() for _ in range(40))


def test_a_burst_of_a_slow_metric_that_is_served_in_time_is_not_refused():
    desk = Desk()
    desk.run(0.4)
    waiting = [desk.ask() for _ in range(16)]
    for step in range(8):
        desk.clock.now += 0.2
        assert list(desk.admission.shed()) == []
        if step % 2:
            for place in tuple(desk.taken):
                desk.end(place)
    assert all(waiting)
    assert desk.admission.waiting == 0


def standing():
    """A queue of one caller and metric whose head has waited too long for a while."""
    desk = Desk()
    desk.run(1.0)
    for _ in range(8):
        desk.ask()
    desk.clock.now += TARGET_S + INTERVAL_S
    return desk


def test_a_queue_that_does_not_drain_takes_nobody_more():
    desk = standing()
    assert desk.ask() is None
    assert desk.ask("bob"), "another caller has a queue of his own"
    assert desk.ask(metric="another") in desk.taken


def test_a_queue_that_has_drained_takes_newcomers():
    desk = standing()
    while desk.admission.waiting:
        desk.end()
    assert desk.ask()


def test_without_shedding_the_limit_alone_refuses():
    desk = Desk(sheds=False)
    for _ in range(20):
        desk.ask()
    desk.clock.now += 60.0
    assert desk.ask()
    assert list(desk.admission.shed()) == []


def test_the_service_itself_is_never_refused_and_takes_turns_with_all_callers():
    desk = Desk(places=1, queue_limit=2)
    desk.ask()
    for caller in ("ann", "bob", None, None, None):
        assert desk.ask(caller)
    desk.clock.now += 60.0
    own = [place.caller for place, _ in desk.admission.shed()]
    assert None not in own
    assert desk.ask(None)
    order = [desk.end()[0].caller for _ in range(4)]
    assert order[0] is order[2] is None


def test_who_leaves_the_queue_is_not_served():
    desk = Desk(places=1)
    desk.ask()
    first, second = desk.ask(), desk.ask()
    desk.admission.leave(first)
    desk.admission.leave(first)
    assert desk.end() == [second]


def test_a_clock_that_jumps_ahead_leaves_nothing_behind():
    """A machine that slept: everybody who waited is late, and the next ones are served."""
    desk = standing()
    desk.clock.now += 86_400.0
    while desk.admission.waiting:
        desk.end()
    while desk.taken:
        desk.end()
    desk.run(0.001)
    assert all(desk.ask() for _ in range(20))


def test_known_metrics_are_bounded():
    desk = Desk()
    for number in range(KNOWN_METRICS + 10):
        desk.run(0.001, number)
    assert len(desk.admission._metrics) == KNOWN_METRICS


CALLERS = st.sampled_from(["ann", "bob", "eve", None])
STEP = st.one_of(
    st.tuples(st.just("ask"), CALLERS, st.sampled_from(["a", "b", "c", None])),
    st.tuples(st.just("end"), st.integers(0, 7), st.booleans()),
    st.tuples(st.just("leave"), st.integers(0, 50), st.none()),
    st.tuples(st.just("pass"), st.sampled_from([0.001, 0.05, 0.3, 1.0, 3.0]), st.none()),
    st.tuples(st.just("shed"), st.none(), st.none()),
)


class Played(Desk):
    """A desk that is told of random steps, and knows who waits."""

    def __init__(self, places, queue_limit):
        super().__init__(places, queue_limit)
        self.line = []

    def settle(self):
        while (each := self.admission.grant()) is not None:
            self.taken.append(each)
            self.line.remove(each)

    def play(self, what, first, second):
        if what == "ask":
            self.asked(first, second)
        elif what == "end" and self.taken:
            self.admission.give_back(self.taken.pop(first % len(self.taken)), ran=second)
            self.settle()
        elif what == "leave" and self.line:
            self.admission.leave(self.line.pop(first % len(self.line)))
        elif what == "pass":
            self.clock.now += first
        elif what == "shed":
            for out, _ in self.admission.shed():
                self.line.remove(out)

    def asked(self, caller, metric):
        before = len(self.pushed_out)
        place = self.ask(caller, metric)
        for out in self.pushed_out[before:]:
            self.line.remove(out)
        assert place or caller is not None, "the service itself is never refused"
        if place and place not in self.taken:
            self.line.append(place)


@given(st.lists(STEP, max_size=120), st.integers(1, 8), st.integers(0, 12))
def test_places_and_shares_hold_in_any_order_of_calls(steps, places, queue_limit):
    desk = Played(places, queue_limit)
    admission = desk.admission
    for step in steps:
        desk.play(*step)
        callers = [place for place in desk.line if place.caller is not None]
        assert admission.used == len(desk.taken) <= places
        assert admission.waiting == len(callers) <= queue_limit
        metrics = Counter(place.metric for place in desk.taken if place.metric)
        assert places == 1 or all(number < places for number in metrics.values())
        assert admission.grant() is None, "a place is free for somebody who waits"
    # Everything drains: nobody waits for ever, and no place is lost.
    while desk.taken:
        admission.give_back(desk.taken.pop())
        desk.settle()
    assert not desk.line
    assert admission.used == admission.waiting == 0
    assert sum(admission._held) == 0


def passes(desk, caller="ann", metric="m"):
    """Whether a caller passes the check that comes before the work, and is expected then."""
    try:
        desk.admission.refuse(caller, metric, expect=True)
    except Busy:
        return False
    return True


def test_who_passed_the_check_counts_before_it_has_arrived():
    desk = Desk(places=2, queue_limit=3)
    desk.run(0.001)
    passed = [passes(desk) for _ in range(300)]
    assert passed == [True] * (1 + 3) + [False] * 296, "one place for a metric, and the queue"
    for _ in range(4):
        desk.admission.expected.arrive("ann", "m")
        assert desk.ask()
    assert desk.admission.expected.number == 0
    assert not passes(desk)


def test_who_does_not_arrive_is_forgotten_after_two_turns():
    desk = Desk(places=1, queue_limit=0)
    assert passes(desk)
    assert not passes(desk)
    assert desk.admission.expected.turn()
    assert not passes(desk)
    assert not desk.admission.expected.turn()
    assert passes(desk)


def test_a_crowd_that_is_expected_keeps_out_neither_other_callers_nor_other_metrics():
    desk = Desk(places=1, queue_limit=4)
    while passes(desk, "hog", "slow"):
        pass
    assert passes(desk, "bob", "slow")
    assert passes(desk, "hog", "quick")
    assert not passes(desk, "hog", "slow")


def test_the_service_itself_passes_the_check_and_is_not_expected():
    desk = Desk(places=1, queue_limit=0)
    assert passes(desk)
    assert passes(desk, None)
    assert desk.admission.expected.number == 1


def test_a_crowd_of_many_callers_is_refused_at_once_when_the_metric_was_slow():
    desk = Desk()
    for _ in range(2):
        desk.run(0.5)
    asked = [desk.ask(f"caller {number}") for number in range(120)]
    assert sum(place is not None for place in asked) == 4 + WAIT_S / (0.5 / 4)


def test_a_crowd_of_new_metrics_is_refused_at_once_when_the_last_new_ones_were_slow():
    desk = Desk()
    for metric in ("a", "b"):
        desk.run(0.5, metric)
    asked = [desk.ask(metric=f"new {number}") for number in range(100)]
    assert sum(place is not None for place in asked) == 7 + WAIT_S / (0.5 / 7)
    assert desk.ask("bob", "new"), "it is the turn of another caller after one of these"


def test_who_waits_is_told_as_soon_as_the_runs_have_lasted_too_long_for_it():
    desk = Desk()
    for _ in range(4 + 128):
        desk.ask()
    left = []
    for _ in range(8):
        desk.clock.now += 0.125
        assert all(place.caller for place, _ in desk.admission.shed())
        left.append(desk.admission.waiting)
    assert left == [60, 28, 17, 12, 8, 6, 5, 4], "as many as four places can serve in time at best"
