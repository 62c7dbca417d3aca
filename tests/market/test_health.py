"""When a provider is left alone, and how it comes back."""

from hanse.market.health import (
    BACKOFF_S_MIN,
    BUSY_S,
    DECLINED_MAX,
    FORGET_S,
    OPEN_S,
    PROBE_S,
    HealthBook,
)
from hanse.market.scoring import RISK_USUAL

PROVIDER = "0x" + "11" * 20


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make_book() -> tuple[HealthBook, Clock]:
    clock = Clock()
    return HealthBook(clock), clock


def is_down(book: HealthBook, clock: Clock) -> bool:
    return book.get(PROVIDER).is_down(clock.now)


def test_after_failures_one_request_finds_out_whether_it_is_back():
    book, clock = make_book()
    book.report_failure(PROVIDER, "gone")
    assert is_down(book, clock)
    clock.now += 1.0
    assert not is_down(book, clock)
    book.begin(PROVIDER)  # the probe
    assert is_down(book, clock)
    book.report_success(PROVIDER, 0.1)
    assert not is_down(book, clock)
    assert book.get(PROVIDER).failures == 0


def test_a_probe_that_fails_doubles_the_wait_and_keeps_none_of_its_own_time():
    book, clock = make_book()
    book.report_failure(PROVIDER, "gone")
    clock.now += 1.0
    book.begin(PROVIDER)
    book.report_failure(PROVIDER, "gone still")
    clock.now += 1.9
    assert is_down(book, clock)
    clock.now += 0.2
    assert not is_down(book, clock)


def test_a_probe_that_never_ends_makes_room_for_the_next():
    book, clock = make_book()
    book.report_failure(PROVIDER, "gone")
    clock.now += 1.0
    book.begin(PROVIDER)
    clock.now += PROBE_S
    assert not is_down(book, clock)
    book.begin(PROVIDER)
    assert is_down(book, clock)


def test_a_healthy_provider_is_not_held_to_one_request():
    book, clock = make_book()
    book.report_success(PROVIDER, 0.1)
    book.begin(PROVIDER)
    assert not is_down(book, clock)


def test_an_older_request_that_ends_well_does_not_open_the_way():
    book, clock = make_book()
    book.report_failure(PROVIDER, "gone")
    book.report_success(PROVIDER, 0.1)
    assert is_down(book, clock)


def test_one_that_takes_requests_and_breaks_them_off_is_left_alone_for_long():
    book, clock = make_book()
    waits = []
    for _ in range(8):
        book.report_success(PROVIDER, 0.1)
        book.report_failure(PROVIDER, "broke off")
        waits.append(book.get(PROVIDER).retry_at - clock.now)
        clock.now += waits[-1]
    assert waits[0] == 1.0
    assert waits[-1] == OPEN_S


def test_what_is_known_of_failures_fades():
    book, clock = make_book()
    for _ in range(4):
        book.report_failure(PROVIDER, "gone")
        clock.now = book.get(PROVIDER).retry_at
    high = book.get_risk(PROVIDER)
    clock.now += 600
    book.report_success(PROVIDER, 0.1)
    assert high > 0.2
    assert book.get_risk(PROVIDER) < RISK_USUAL + 0.01


def test_one_whose_places_are_taken_is_passed_over_for_a_moment_and_has_not_failed():
    book, clock = make_book()
    for _ in range(20):
        book.report_busy(PROVIDER, "64 requests are at work, at most 64")
        assert is_down(book, clock)
        clock.now += BUSY_S
        assert not is_down(book, clock)
        book.begin(PROVIDER)
        assert not is_down(book, clock)  # nobody has to find out whether it is back
    assert book.get(PROVIDER).failures == 0
    assert book.get_risk(PROVIDER) == RISK_USUAL


def test_what_was_under_way_when_a_provider_died_fails_once():
    book, clock = make_book()
    for _ in range(30):
        book.report_failure(PROVIDER, "it died")
        clock.now += 0.01
    assert book.get(PROVIDER).failures == 1
    clock.now += 1.0
    assert not is_down(book, clock)


def test_a_probe_that_finds_all_places_taken_has_found_it_back():
    book, clock = make_book()
    for _ in range(3):
        book.report_failure(PROVIDER, "gone")
        clock.now = book.get(PROVIDER).retry_at
    book.begin(PROVIDER)
    book.report_busy(PROVIDER, "64 requests are at work, at most 64")
    assert is_down(book, clock)
    clock.now += BUSY_S
    assert not is_down(book, clock)
    assert book.get(PROVIDER).failures == 0
    book.begin(PROVIDER)
    assert not is_down(book, clock)  # nobody has to find out once more


def test_failures_count_against_one_that_is_back():
    book, clock = make_book()
    for _ in range(4):
        book.report_failure(PROVIDER, "gone")
        clock.now = book.get(PROVIDER).retry_at
    before = book.get_risk(PROVIDER)
    book.begin(PROVIDER)
    book.report_success(PROVIDER, 0.1)
    assert RISK_USUAL < book.get_risk(PROVIDER) < before
    clock.now += FORGET_S + 1
    assert book.get_risk(PROVIDER) == RISK_USUAL


def test_a_probe_that_is_refused_for_its_own_fault_has_found_it_back():
    book, clock = make_book()
    book.report_failure(PROVIDER, "gone")
    book.report_there(PROVIDER)
    assert is_down(book, clock)  # an older request, which finds out nothing
    clock.now += 1.0
    book.begin(PROVIDER)
    book.report_there(PROVIDER)
    assert not is_down(book, clock)
    assert book.get(PROVIDER).failures == 0
    assert book.get_risk(PROVIDER) > RISK_USUAL  # it failed all the same


def test_one_that_leaves_everything_to_others_is_failing():
    book, clock = make_book()

    def decline(times: int) -> None:
        for _ in range(times):
            clock.now += BACKOFF_S_MIN
            book.report_declined(PROVIDER, "logit_bias is not offered here")

    decline(DECLINED_MAX)
    assert not is_down(book, clock), "an engine need not offer everything"
    book.report_success(PROVIDER, 0.1)
    decline(DECLINED_MAX)
    assert not is_down(book, clock), "an answer between them starts the count anew"
    decline(1)
    assert is_down(book, clock)
    assert book.get_risk(PROVIDER) > RISK_USUAL


def test_what_is_declined_together_counts_once():
    book, clock = make_book()
    for _ in range(3 * DECLINED_MAX):  # of one moment in which a top-up was not confirmed yet
        book.report_declined(PROVIDER, "insufficient_balance")
    assert not is_down(book, clock)
    assert book.get_risk(PROVIDER) == RISK_USUAL


def test_one_that_an_audit_caught_stays_barred_whatever_it_answers():
    book, clock = make_book()
    changed: list[str] = []
    book.watch(changed.append)
    book.bar(PROVIDER, "it ran something else", clock.now + 100)
    assert changed == [PROVIDER], "the board hears of it at once"
    book.begin(PROVIDER)
    book.report_success(PROVIDER, 0.1)  # it was at work when it was caught
    book.bar(PROVIDER, "an older finding", clock.now + 50)
    assert is_down(book, clock)
    assert book.get(PROVIDER).is_out(clock.now), "its sub-account is not filled up"
    assert not book.get(PROVIDER).is_worth_a_probe(clock.now), "not even where nobody else is left"
    assert book.get(PROVIDER).barred_reason == "it ran something else"
    clock.now += 100
    assert not is_down(book, clock)
