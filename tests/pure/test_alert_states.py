"""Alerts through results that come late, are corrected, go missing and come back."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.alerts.series import NotSeries
from tests.alerting import SINGLE, Scene, day


def test_history_makes_no_alerts_but_the_newest_point_does():
    scene = Scene()
    assert scene.see(scene.daily(5, 500, 5, 5)) == []
    assert Scene().see(scene.daily(5, 5, 500)) == [("firing", "Email", day(2))]


def test_one_alert_for_an_episode():
    scene = Scene()
    scene.see(scene.daily(5))
    assert scene.see(scene.daily(5, 200)) == [("firing", "Email", day(1))]
    assert scene.see(scene.daily(5, 200, 300)) == []
    assert scene.see(scene.daily(5, 200, 300, 250)) == []
    (alert,) = scene.alerts.values()
    assert (alert.point, alert.last_point, alert.value) == (day(1), day(3), 200)
    assert scene.see(scene.daily(5, 200, 300, 250, 5)) == [("resolved", "Email", day(1))]
    assert scene.see(scene.daily(5, 200, 300, 250, 5, 200)) == [("firing", "Email", day(5))]
    assert len(scene.alerts) == 2


def test_every_series_is_watched():
    scene = Scene()
    rows = scene.daily(5) + scene.daily(5, channel="Call")
    scene.see(rows)
    told = scene.see([*rows, (day(1), "Email", 5), (day(1), "Call", 101)])
    assert told == [("firing", "Call", day(1))]
    assert scene.see([*rows, (day(1), "Email", 101), (day(1), "Call", 101)]) == [("firing", "Email", day(1))]


def test_a_new_series_is_watched_from_its_first_point_on():
    scene = Scene()
    scene.see(scene.daily(5, 5))
    rows = [*scene.daily(5, 5, 5), (day(2), "Fax", 500)]
    assert scene.see(rows) == [("firing", "Fax", day(2))]


def test_an_alert_resolves_at_its_own_bound():
    scene = Scene(above=100, resolve=80)
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 120))
    assert scene.see(scene.daily(5, 120, 90)) == []
    assert scene.see(scene.daily(5, 120, 90, 110, 95)) == []
    assert scene.see(scene.daily(5, 120, 90, 110, 95, 80)) == [("resolved", "Email", day(1))]
    assert len(scene.alerts) == 1


def test_it_is_pending_until_it_has_lasted():
    scene = Scene(for_s=3600)
    scene.see(scene.daily(5))
    assert scene.see(scene.daily(5, 200)) == []
    assert scene.states == ["pending"]
    assert scene.see(scene.daily(5, 200), after_s=3600) == [("firing", "Email", day(1))]


def test_points_that_span_the_time_fire_at_once():
    scene = Scene(for_s=86400)
    scene.see(scene.daily(5))
    assert scene.see(scene.daily(5, 200)) == []
    assert scene.see(scene.daily(5, 200, 200)) == [("firing", "Email", day(1))]


def test_what_ends_before_it_has_lasted_is_never_told():
    scene = Scene(for_s=2 * 86400)
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    assert scene.see(scene.daily(5, 200, 5)) == []
    assert scene.states == ["resolved"]


def test_a_load_of_several_days_tells_what_happened_in_it():
    scene = Scene()
    scene.see(scene.daily(5))
    told = scene.see(scene.daily(5, 5, 200, 5))
    assert told == [("firing", "Email", day(2)), ("resolved", "Email", day(2))]


def test_a_load_of_much_history_tells_only_the_last():
    scene = Scene()
    scene.see(scene.daily(5))
    told = scene.see(scene.daily(5, *([200, 5] * 50)))
    assert len(told) == 10
    assert len(scene.alerts) == 50
    assert told[-1] == ("resolved", "Email", day(99))


def test_a_correction_withdraws_and_another_reopens():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    assert scene.see(scene.daily(5, 90)) == [("withdrawn", "Email", day(1))]
    assert scene.see(scene.daily(5, 90)) == []
    assert scene.see(scene.daily(5, 101)) == [("firing", "Email", day(1))]
    assert len(scene.alerts) == 1


def test_a_late_row_opens_an_alert_for_its_day():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 5, 5, 5, missing=[2]))
    assert scene.see(scene.daily(5, 5, 300, 5)) == [
        ("firing", "Email", day(2)),
        ("resolved", "Email", day(2)),
    ]


def test_a_resolved_alert_is_withdrawn_by_a_correction_too():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    scene.see(scene.daily(5, 200, 5))
    assert scene.see(scene.daily(5, 20, 5)) == [("withdrawn", "Email", day(1))]


def test_a_correction_of_the_end_goes_on_with_the_same_alert():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    scene.see(scene.daily(5, 200, 5))
    assert scene.see(scene.daily(5, 200, 205)) == [("firing", "Email", day(1))]
    assert len(scene.alerts) == 1


def test_late_data_that_join_two_episodes_leave_one():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    scene.see(scene.daily(5, 200, 5))
    scene.see(scene.daily(5, 200, 5, 200))
    assert scene.states == ["resolved", "firing"]
    scene.see(scene.daily(5, 200, 200, 200))
    assert sorted(scene.states) == ["firing", "withdrawn"]


def test_a_point_has_one_alert_also_when_corrections_move_the_begin_of_another_to_it():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 5, 200))
    scene.see(scene.daily(5, 5, 5))
    scene.see(scene.daily(5, 200, 5))
    scene.see(scene.daily(5, 200, 200))
    scene.see(scene.daily(5, 5, 200))
    points = [each.point for each in scene.alerts.values()]
    assert len(points) == len(set(points)) == 2
    assert len(scene.open) == 1


def test_points_that_leave_the_result_change_nothing():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    scene.see(scene.daily(5, 200, 5))
    rows = scene.daily(5, 200, 5, 5, 5)
    assert scene.see(rows[3:]) == []
    assert scene.states == ["resolved"]


def test_an_episode_longer_than_the_result_stays_one_alert():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    for number in range(3, 12):
        rows = scene.daily(5, *([200] * number))
        assert scene.see(rows[-3:]) == []
    (alert,) = scene.alerts.values()
    assert (alert.point, alert.last_point) == (day(1), day(11))


# Missing data


@pytest.mark.parametrize("gone", ["row", "null", "series", "all"])
def test_missing_data_never_resolve_an_alert(gone):
    scene = Scene()
    others = scene.daily(5, 5, 5, channel="Call")
    scene.see(scene.daily(5, 5) + others[:2])
    assert scene.see(scene.daily(5, 5, 200) + others) == [("firing", "Email", day(2))]
    rows = {
        "row": scene.daily(5, 5) + others,
        "null": scene.daily(5, 5, None) + others,
        "series": others,
        "all": [],
    }[gone]
    told = scene.see(rows)
    assert told in ([], [("nodata", "Email", day(2))])
    (alert,) = scene.open
    assert alert.state in {"firing", "nodata"}
    assert scene.see(rows) == []
    told = scene.see([*scene.daily(5, 5, 200, 5), *others, (day(3), "Call", 5)])
    assert ("resolved", "Email", day(2)) in told
    assert scene.open == []


def test_data_that_come_back_unusual_go_on_with_the_alert():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    scene.see([])
    assert scene.states == ["nodata"]
    assert scene.see(scene.daily(5, 200, 300)) == []
    assert scene.states == ["firing"]


def test_an_empty_result_is_told_once_and_its_return_too():
    scene = Scene()
    scene.see(scene.daily(5, 5))
    assert scene.see([]) == [("nodata", None, day(1))]
    assert scene.see([]) == []
    assert scene.see(scene.daily(5, 5)) == [("resolved", None, day(1))]
    assert scene.see([]) == [("nodata", None, day(1))]
    assert len(scene.alerts) == 1


def test_a_regular_series_that_stops_is_missed_and_a_rare_one_is_not():
    scene = Scene()
    regular, others = scene.daily(*[5] * 20), scene.daily(*[5] * 21, channel="Call")
    rare = [(day(number), "Fax", 1) for number in (3, 9, 15)]
    scene.see(regular + others[:20] + rare)
    assert scene.see(regular + others + rare) == [("nodata", "Email", day(19))]
    rows = [*regular, (day(20), "Email", 5), *others, *rare]
    assert scene.see(rows) == [("resolved", "Email", day(19))]


def test_missing_counts_may_be_zeros():
    scene = Scene(below=1, missing="zero")
    rows = scene.daily(*[5] * 20) + scene.daily(*[5] * 20, channel="Call")
    scene.see(rows)
    assert scene.see([*rows, (day(20), "Call", 5)]) == [("firing", "Email", day(20))]


def test_data_that_stop_coming_are_stale_only_if_they_once_were_current():
    history = Scene()
    history.see(history.daily(5, 5, 5))
    assert history.see(history.daily(5, 5, 5), after_s=10 * 86400) == []
    scene = Scene()
    scene.now = datetime(2025, 6, 3, 12, tzinfo=UTC)
    scene.see(scene.daily(5, 5, 5))
    assert scene.due == datetime(2025, 6, 6, 0, 0, 1, tzinfo=UTC)
    assert scene.see(scene.daily(5, 5, 5), after_s=2 * 86400) == []
    assert scene.see(scene.daily(5, 5, 5), after_s=86400) == [("stale", None, day(2))]
    scene.see(scene.daily(5, 5, 5, 5, 5, 5))
    assert scene.states == ["resolved"]


def test_a_result_that_fails_leaves_open_alerts_stale():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    assert scene.fail() == [("stale", "Email", day(1))]
    assert scene.fail() == []
    scene.see(scene.daily(5, 200))
    assert scene.states == ["firing"]
    quiet = Scene()
    quiet.see(quiet.daily(5))
    assert quiet.fail() == [("stale", None, day(0))]
    assert quiet.see(quiet.daily(5)) == [("resolved", None, day(0))]


def test_an_acknowledged_alert_says_no_more_until_it_ends():
    scene = Scene()
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200))
    scene.acknowledge()
    assert scene.see(scene.daily(5, 200, 300)) == []
    assert scene.see([]) == []
    assert scene.states == ["acknowledged"]
    assert scene.see(scene.daily(5, 200, 300, 5)) == [("resolved", "Email", day(1))]


# Late data


def test_a_point_is_evaluated_when_it_has_settled():
    scene = Scene(settle_s=2 * 86400)
    scene.now = datetime(2025, 6, 2, 12, tzinfo=UTC)
    assert scene.see(scene.daily(5, 500)) == []
    assert scene.due == datetime(2025, 6, 3, tzinfo=UTC)
    assert scene.see(scene.daily(5, 500), after_s=2 * 86400) == [("firing", "Email", day(1))]


@pytest.mark.parametrize("kind", [{"kind": "change", "change": 0.5}, {"kind": "anomaly"}])
def test_a_day_that_is_not_over_is_not_too_low(kind):
    scene = Scene(**kind)
    values = [100, 101, 99, 100, 102] * 8
    scene.now = datetime(2025, 7, 10, 20, tzinfo=UTC)
    scene.see(scene.daily(*values[:39]))
    assert scene.see(scene.daily(*values[:39], 20), after_s=3600) == []
    assert scene.due == datetime(2025, 7, 11, tzinfo=UTC)
    told = scene.see(scene.daily(*values[:39], 20), after_s=4 * 3600)
    assert told == [("firing", "Email", day(39))]


# Kinds


def test_a_change_is_a_fraction_of_the_point_before():
    scene = Scene(kind="change", change=0.5)
    scene.see(scene.daily(100, 100))
    assert scene.see(scene.daily(100, 100, 150)) == []
    assert scene.see(scene.daily(100, 100, 150, 226)) == [("firing", "Email", day(3))]
    up_only = Scene(kind="change", above=0.5)
    up_only.see(up_only.daily(100))
    assert up_only.see(up_only.daily(100, 10)) == []
    down = Scene(kind="change", below=0.5)
    down.see(down.daily(100))
    assert down.see(down.daily(100, 300, 149)) == [("firing", "Email", day(2))]


def test_small_volumes_are_not_judged():
    scene = Scene(kind="change", change=0.5, min_volume=50)
    scene.see(scene.daily(2))
    assert scene.see(scene.daily(2, 20)) == []
    assert scene.see(scene.daily(2, 20, 60)) == [("firing", "Email", day(2))]


def test_an_anomaly_is_told_with_what_was_expected():
    scene = Scene(kind="anomaly")
    values = [20, 22, 19, 21, 18, 20, 23] * 6
    scene.see(scene.daily(*values))
    assert scene.see(scene.daily(*values, 90)) == [("firing", "Email", day(42))]
    (alert,) = scene.alerts.values()
    assert alert.expected == pytest.approx(20.5, abs=2.5)
    assert scene.see(scene.daily(*values, 90, 21)) == [("resolved", "Email", day(42))]


def test_a_result_of_one_number_fires_and_resolves():
    scene = Scene(SINGLE)
    assert scene.see([(50,)]) == []
    (told,) = scene.see([(150,)])
    assert told[0] == "firing"
    assert scene.see([(160,)]) == []
    assert scene.see([(None,)]) == [("nodata", *told[1:])]
    assert scene.see([]) == []
    assert scene.see([(50,)]) == [("resolved", *told[1:])]


def test_several_rows_of_a_series_at_one_time_are_refused():
    scene = Scene(by=[])
    with pytest.raises(NotSeries, match="several rows for 2025-06-01"):
        scene.see(scene.daily(5) + scene.daily(5, channel="Call"))


class Corrections(RuleBasedStateMachine):
    """Whatever happens to the rows, alerts agree with them, and the same result changes nothing twice."""

    @initialize(for_s=st.sampled_from([0, 86400]), resolve=st.sampled_from([None, 80]))
    def begin(self, for_s, resolve):
        self.scene = Scene(for_s=for_s, resolve=resolve)
        self.rows = {(number, channel): 5 for number in range(3) for channel in ("Email", "Call")}
        self.length = 3
        self.see()

    def see(self):
        rows = [(day(number), channel, value) for (number, channel), value in self.rows.items()]
        before = dict(self.scene.alerts)
        self.told = self.scene.see(rows)
        self.changed = [each for each in self.scene.alerts.values() if before.get(each.id) != each]
        assert self.scene.see(rows, after_s=0) == []

    @rule(values=st.lists(st.sampled_from([5, 90, 200]), min_size=2, max_size=2))
    def next_day(self, values):
        for channel, value in zip(("Email", "Call"), values, strict=True):
            self.rows[self.length, channel] = value
        self.length += 1
        self.see()

    @rule(data=st.data(), value=st.sampled_from([5, 90, 200]), channel=st.sampled_from(["Email", "Call"]))
    def correct(self, data, value, channel):
        number = data.draw(st.integers(0, self.length - 1))
        self.rows[number, channel] = value
        self.see()

    @rule(channel=st.sampled_from(["Email", "Call"]), null=st.booleans())
    def lose_the_newest(self, channel, null):
        key = (self.length - 1, channel)
        if key not in self.rows:
            return
        if null:
            self.rows[key] = None
        else:
            del self.rows[key]
        self.see()
        assert [each for each in self.changed if each.state == "resolved" and each.cause == "value"] == []

    @rule()
    def lose_all(self):
        kept, self.rows = self.rows, {}
        self.see()
        assert {each.state for each in self.changed} <= {"nodata"}
        self.rows = kept
        self.see()

    @invariant()
    def one_open_alert_for_each_series(self):
        if hasattr(self, "scene"):
            own = [each.series["channel"] for each in self.scene.open if each.cause == "value"]
            assert len(own) == len(set(own))

    @invariant()
    def a_point_has_one_alert(self):
        if hasattr(self, "scene"):
            points = [(str(each.series), each.point, each.cause) for each in self.scene.alerts.values()]
            assert len(points) == len(set(points))

    @invariant()
    def what_is_unusual_now_has_an_alert(self):
        if not hasattr(self, "scene"):
            return
        for channel in ("Email", "Call"):
            value = self.rows.get((self.length - 1, channel))
            if value == 200 and self.length > 3:
                assert [each for each in self.scene.open if each.series.get("channel") == channel]

    @invariant()
    def each_alert_tells_changes_only(self):
        if not hasattr(self, "scene"):
            return
        for alert_id, alert in self.scene.alerts.items():
            told = [state for each, state in self.scene.log if each == alert_id]
            assert not told or told[0] in {"firing", "nodata", "stale"}
            if alert.cause == "missing":
                continue
            # Between two `nodata` data were back, and what they showed was known.
            values = [each for each in told if each != "nodata"]
            assert all(first != second for first, second in pairwise(values))


Corrections.TestCase.settings = settings(max_examples=60, stateful_step_count=20)
TestCorrections = Corrections.TestCase
