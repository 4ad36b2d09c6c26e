use super::*;

fn epoch() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test pretends from some instant on"
    )]
    Instant::now()
}

type TestPool = Pool<u32, &'static str>;

const SECOND: Duration = Duration::from_secs(1);

fn limits_of(size: usize) -> Limits {
    Limits {
        size: NonZeroUsize::new(size),
        min_size: 0,
        reserve_size: 0,
        reserve_timeout: Some(5 * SECOND),
        max_waiting: 3,
        checkout_timeout: Some(2 * SECOND),
        wait_notice: None,
        server_idle_timeout: Some(600 * SECOND),
        server_lifetime: 3600 * SECOND,
        login_retry: 15 * SECOND,
        check_after: None,
        connects_in_turn: false,
        turn: Turn::LastUsed,
    }
}

fn pool_of(size: usize) -> TestPool {
    Pool::new(limits_of(size))
}

/// How many connections are begun because of what has happened.
fn connects(pool: &mut TestPool, now: Instant) -> usize {
    let mut begun = 0;
    while let Some(step) = pool.next_step(true, now) {
        assert!(matches!(step, Step::Connect(_)), "{step:?}");
        pool.on_connecting();
        begun += 1;
    }
    begun
}

/// A client comes that has to wait; how many connections are begun for it.
fn waits(pool: &mut TestPool, client: &'static str, now: Instant) -> usize {
    assert_eq!(pool.checkout(|| client, now), Checkout::Wait);
    connects(pool, now)
}

/// A pool whose servers, all idle, were given back at these instants.
fn rested(limits: Limits, since: &[Instant]) -> TestPool {
    let mut pool = Pool::new(Limits {
        max_waiting: since.len(),
        ..limits
    });
    for now in since {
        waits(&mut pool, "ann", *now);
    }
    for (server, now) in (1..).zip(since) {
        assert_eq!(pool.on_connected(server, *now), Some(("ann", server)));
    }
    for (server, now) in (1..).zip(since) {
        assert_eq!(pool.checkin(server, *now), None);
    }
    pool
}

#[test]
fn the_longest_waiting_client_is_served_first() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(waits(&mut pool, "ann", now), 1);
    assert_eq!(waits(&mut pool, "bob", now), 0);
    assert_eq!(pool.on_connected(7, now), Some(("ann", 7)));
    assert_eq!(waits(&mut pool, "cyd", now), 0);
    assert_eq!(pool.checkin(7, now), Some(("bob", 7)));
    assert_eq!(pool.checkin(7, now), Some(("cyd", 7)));
    assert_eq!(pool.checkin(7, now), None);
    assert_eq!(pool.checkout(|| "dan", now), Checkout::Use(7));
}

#[test]
fn the_most_recently_used_server_is_used_again() {
    let now = epoch();
    let mut pool = rested(limits_of(2), &[now, now]);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Use(2));
}

#[test]
fn or_the_longest_resting_one_where_all_are_to_have_their_share() {
    let now = epoch();
    let limits = Limits {
        turn: Turn::LongestIdle,
        ..limits_of(2)
    };
    let mut pool = rested(limits, &[now, now]);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Use(1));
    assert_eq!(pool.checkin(1, now), None);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Use(2));
}

#[test]
fn no_more_connections_are_made_than_clients_wait_for() {
    let (mut pool, now) = (pool_of(5), epoch());
    assert_eq!(waits(&mut pool, "ann", now), 1);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
    assert_eq!(waits(&mut pool, "bob", now), 1);
    assert_eq!(pool.checkin(1, now), Some(("bob", 1)));
    assert_eq!(
        waits(&mut pool, "cyd", now),
        0,
        "the connection meant for bob is still coming"
    );
    assert_eq!(pool.on_connected(2, now), Some(("cyd", 2)));
}

#[test]
fn a_pool_without_a_size_has_as_many_servers_as_clients() {
    let (mut pool, now) = (pool_of(0), epoch());
    let mut begun = 0;
    for _ in 0..3 {
        begun += waits(&mut pool, "ann", now);
    }
    assert_eq!(begun, 3);
}

#[test]
fn the_queue_has_an_end() {
    let (mut pool, now) = (pool_of(1), epoch());
    for client in ["ann", "bob", "cyd"] {
        waits(&mut pool, client, now);
    }
    assert_eq!(pool.checkout(|| "dan", now), Checkout::QueueFull);
}

#[test]
fn a_lost_server_is_replaced_for_those_who_wait() {
    let (mut pool, now) = (pool_of(1), epoch());
    waits(&mut pool, "ann", now);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
    assert_eq!(waits(&mut pool, "bob", now), 0);
    pool.on_lost();
    assert_eq!(connects(&mut pool, now), 1, "bob needs another one");
    assert_eq!(pool.on_connected(2, now), Some(("bob", 2)));
    pool.on_lost();
    assert_eq!(connects(&mut pool, now), 0, "nobody waits");
    assert_eq!(pool.occupancy(now), Occupancy::default());
}

#[test]
fn those_who_wait_are_told_when_the_server_does_not_let_us_in() {
    let (mut pool, now) = (pool_of(2), epoch());
    waits(&mut pool, "ann", now);
    waits(&mut pool, "bob", now);
    assert_eq!(
        pool.on_connect_failed(ConnectOutcome::Refused, now),
        ["ann", "bob"]
    );
}

#[test]
fn those_who_wait_go_on_waiting_while_some_server_is_in_use() {
    let (mut pool, now) = (pool_of(2), epoch());
    waits(&mut pool, "ann", now);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
    waits(&mut pool, "bob", now);
    let told = pool.on_connect_failed(ConnectOutcome::Refused, now);
    assert_eq!(told, [""; 0]);
    assert_eq!(pool.checkin(1, now), Some(("bob", 1)));
}

#[test]
fn a_server_that_can_not_be_reached_is_tried_again_after_a_while_by_one_connection() {
    let (mut pool, now) = (pool_of(3), epoch());
    assert_eq!(waits(&mut pool, "ann", now), 1);
    let told = pool.on_connect_failed(ConnectOutcome::Unreachable, now);
    assert_eq!(told, [""; 0], "it may be there in a moment");
    assert_eq!(connects(&mut pool, now + 14 * SECOND), 0);
    assert_eq!(pool.next_deadline(), Some(now + 2 * SECOND));
    assert_eq!(connects(&mut pool, now + 15 * SECOND), 1);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
}

#[test]
fn who_comes_while_no_server_can_be_reached_is_told_at_once() {
    let (mut pool, now) = (pool_of(3), epoch());
    waits(&mut pool, "ann", now);
    pool.on_connect_failed(ConnectOutcome::Unreachable, now);
    assert_eq!(pool.checkout(|| "bob", now), Checkout::LoginFailing);
    let later = now + 15 * SECOND;
    assert_eq!(pool.remove_overdue(later), ["ann"]);
    assert_eq!(pool.checkout(|| "cyd", later), Checkout::LoginFailing);
    assert_eq!(
        connects(&mut pool, later),
        1,
        "to find out whether it is back"
    );
    assert_eq!(pool.on_connected(1, later), None);
    assert_eq!(pool.checkout(|| "dan", later), Checkout::Use(1));
}

#[test]
fn while_a_server_is_left_others_may_wait_for_it() {
    let (mut pool, now) = (pool_of(3), epoch());
    waits(&mut pool, "ann", now);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
    waits(&mut pool, "bob", now);
    pool.on_connect_failed(ConnectOutcome::Unreachable, now);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Wait);
}

#[test]
fn the_reserve_is_for_those_who_have_waited_long() {
    let now = epoch();
    let mut pool = TestPool::new(Limits {
        reserve_size: 1,
        checkout_timeout: None,
        ..limits_of(1)
    });
    waits(&mut pool, "ann", now);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
    assert_eq!(waits(&mut pool, "bob", now), 0);
    assert_eq!(waits(&mut pool, "cyd", now), 0);
    assert_eq!(pool.next_deadline(), Some(now + 5 * SECOND));
    let later = now + 5 * SECOND;
    assert_eq!(
        pool.next_step(true, later),
        Some(Step::Connect(Wanted::FromReserve))
    );
    pool.on_connecting();
    assert_eq!(pool.next_step(true, later), None, "the reserve is one");
    assert_eq!(pool.on_connected(2, later), Some(("bob", 2)));
    assert_eq!(pool.next_step(true, later), None);
}

#[test]
fn a_minimum_is_kept_while_somebody_uses_the_pool() {
    let now = epoch();
    let mut pool = TestPool::new(Limits {
        min_size: 2,
        ..limits_of(5)
    });
    assert_eq!(pool.next_step(false, now), None);
    assert_eq!(connects(&mut pool, now), 2);
    assert_eq!(pool.on_connected(1, now), None);
    assert_eq!(pool.on_connected(2, now), None);
    let later = now + 600 * SECOND;
    assert_eq!(
        pool.remove_aged(|_| later, later),
        [0; 0],
        "idle, but wanted"
    );
}

#[test]
fn a_client_waits_no_longer_than_the_timeout() {
    let (mut pool, now) = (pool_of(1), epoch());
    waits(&mut pool, "ann", now);
    waits(&mut pool, "bob", now + SECOND);
    let almost = now + Duration::from_millis(1999);
    assert_eq!(pool.remove_overdue(almost), [""; 0]);
    assert_eq!(pool.remove_overdue(now + 2 * SECOND), ["ann"]);
    assert_eq!(pool.oldest_wait(), Some(now + SECOND));
}

#[test]
fn a_client_that_waits_for_long_is_told_so_once() {
    let now = epoch();
    let mut pool = TestPool::new(Limits {
        wait_notice: Some(SECOND),
        ..limits_of(1)
    });
    waits(&mut pool, "ann", now);
    waits(&mut pool, "bob", now + SECOND);
    let mut told = |at| {
        let mut told = Vec::new();
        pool.tell_waiting(at, |client| told.push(*client));
        told
    };
    assert_eq!(told(now), [""; 0]);
    assert_eq!(told(now + SECOND), ["ann"]);
    assert_eq!(told(now + 2 * SECOND), ["bob"]);
    assert_eq!(told(now + 3 * SECOND), [""; 0]);
}

#[test]
fn a_client_that_left_is_not_given_a_server() {
    let (mut pool, now) = (pool_of(1), epoch());
    waits(&mut pool, "ann", now);
    pool.forget(|waiter| *waiter == "ann");
    assert_eq!(pool.on_connected(1, now), None);
    let rests = Occupancy {
        idle: 1,
        ..Occupancy::default()
    };
    assert_eq!(pool.occupancy(now), rests);
}

#[test]
fn a_server_that_has_rested_for_long_is_checked_before_it_is_used() {
    let now = epoch();
    let limits = Limits {
        check_after: Some(30 * SECOND),
        ..limits_of(2)
    };
    let mut pool = rested(limits, &[now, now + SECOND]);
    let later = now + 30 * SECOND;
    assert_eq!(pool.checkout(|| "ann", later), Checkout::Use(2));
    assert_eq!(pool.checkout(|| "bob", later), Checkout::Wait);
    assert_eq!(pool.next_step(true, later), Some(Step::Check(1)));
    assert_eq!(pool.next_step(true, later), None);
    assert_eq!(pool.on_checked(1, later), Some(("bob", 1)));
}

#[test]
fn a_server_that_fails_the_check_is_replaced() {
    let now = epoch();
    let limits = Limits {
        check_after: Some(Duration::ZERO),
        ..limits_of(1)
    };
    let mut pool = rested(limits, &[now]);
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Wait);
    assert_eq!(pool.next_step(true, now), Some(Step::Check(1)));
    pool.on_check_failed();
    assert_eq!(connects(&mut pool, now), 1);
}

#[test]
fn where_every_server_is_checked_it_is_so_between_two_clients() {
    let now = epoch();
    let limits = Limits {
        check_after: Some(Duration::ZERO),
        ..limits_of(1)
    };
    let mut pool = TestPool::new(limits);
    waits(&mut pool, "ann", now);
    assert_eq!(pool.on_connected(1, now), Some(("ann", 1)));
    waits(&mut pool, "bob", now);
    assert_eq!(pool.checkin(1, now), None);
    assert_eq!(pool.next_step(true, now), Some(Step::Check(1)));
    assert_eq!(pool.on_checked(1, now), Some(("bob", 1)));
}

#[test]
fn servers_that_idle_too_long_or_are_too_old_are_taken_out() {
    let now = epoch();
    let mut pool = rested(limits_of(2), &[now, now + 500 * SECOND]);
    let later = now + 600 * SECOND;
    assert_eq!(pool.remove_aged(|_| later, later), [1]);
    assert_eq!(pool.remove_aged(|_| later - 3600 * SECOND, later), [2]);
}

#[test]
fn servers_of_one_age_are_not_all_closed_at_once() {
    let now = epoch();
    let mut pool = rested(limits_of(2), &[now, now]);
    let later = now + 10 * SECOND;
    let born = later - 3600 * SECOND;
    assert_eq!(pool.remove_aged(|_| born, later), [1]);
    assert!(!pool.is_life_over(born, later));
    assert!(pool.is_life_over(born, later + 1800 * SECOND));
}

#[test]
fn where_servers_are_used_once_their_life_is_over_at_once() {
    let now = epoch();
    let mut pool = TestPool::new(Limits {
        server_lifetime: Duration::ZERO,
        ..limits_of(2)
    });
    pool.on_life_over(now);
    assert!(pool.is_life_over(now, now));
}

#[test]
fn a_pool_that_becomes_smaller_closes_what_is_too_much() {
    let now = epoch();
    let mut pool = rested(limits_of(3), &[now, now, now]);
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Use(3));
    pool.set_limits(limits_of(1));
    assert_eq!(pool.remove_excess(), [1, 2]);
    assert_eq!(pool.remove_excess(), [0; 0]);
}

#[test]
fn a_paused_pool_gives_nobody_a_server() {
    let now = epoch();
    let mut pool = rested(limits_of(2), &[now, now]);
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Use(2));
    assert_eq!(pool.pause(), [1]);
    assert_eq!(waits(&mut pool, "bob", now), 0);
    assert!(!pool.is_released());
    pool.on_lost();
    assert!(pool.is_released());
    pool.resume();
    assert_eq!(connects(&mut pool, now), 1);
    assert_eq!(pool.on_connected(3, now), Some(("bob", 3)));
}

#[test]
fn the_longest_resting_server_makes_room_for_another_pools() {
    let now = epoch();
    let mut pool = rested(limits_of(2), &[now, now + SECOND]);
    assert_eq!(pool.oldest_rest(), Some(now));
    assert_eq!(pool.evict(), Some(1));
    assert_eq!(pool.evict(), Some(2));
    assert_eq!(pool.evict(), None);
}

#[test]
fn a_place_for_a_server_of_ones_own_is_there_only_where_nobody_waits_and_none_is_needed() {
    let (mut pool, now) = (pool_of(2), epoch());
    assert!(pool.occupy());
    assert_eq!(waits(&mut pool, "ann", now), 1);
    assert!(!pool.occupy());
    assert_eq!(waits(&mut pool, "bob", now), 0);
    pool.on_lost();
    assert!(!pool.occupy());
    assert_eq!(connects(&mut pool, now), 1);
}

#[test]
fn hosts_in_order_are_connected_one_at_a_time() {
    let now = epoch();
    let mut pool = Pool::<u32, _>::new(Limits {
        connects_in_turn: true,
        ..limits_of(3)
    });
    for client in ["ann", "bob"] {
        assert_eq!(pool.checkout(|| client, now), Checkout::Wait);
    }
    let connect = Some(Step::Connect(Wanted::ByClients));
    assert_eq!(pool.next_step(true, now), connect);
    pool.on_connecting();
    assert_eq!(pool.next_step(true, now), None);
    assert_eq!(pool.on_connected(7, now), Some(("ann", 7)));
    assert_eq!(pool.next_step(true, now), connect);
}

#[test]
fn a_part_without_room_waits_until_there_is_some() {
    let (mut pool, now) = (pool_of(3), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Wait);
    assert_eq!(
        pool.next_step(true, now),
        Some(Step::Connect(Wanted::ByClients))
    );
    pool.on_no_room();
    assert!(pool.lacks_room());
    assert_eq!(pool.next_step(true, now), None);
    pool.on_room();
    assert_eq!(
        pool.next_step(true, now),
        Some(Step::Connect(Wanted::ByClients))
    );
    pool.on_no_room();
    pool.pause();
    assert!(!pool.lacks_room(), "who is paused is not to be given any");
}

#[test]
fn the_reserve_is_there_for_a_part_without_room() {
    let now = epoch();
    let mut pool = Pool::<u32, _>::new(Limits {
        reserve_size: 1,
        ..limits_of(3)
    });
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Wait);
    pool.on_no_room();
    assert_eq!(pool.next_step(true, now + 4 * SECOND), None);
    assert_eq!(
        pool.next_step(true, now + 5 * SECOND),
        Some(Step::Connect(Wanted::FromReserve))
    );
}

#[test]
fn a_need_is_urgent_where_no_server_would_come_back() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(pool.need(), None);
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Wait);
    let need = Need {
        clients: 1,
        since: now,
        is_urgent: true,
    };
    assert_eq!(pool.need(), Some(need));
    assert_eq!(connects(&mut pool, now), 1);
    let is_urgent = false;
    assert_eq!(pool.need(), Some(Need { is_urgent, ..need }));
    assert_eq!(pool.on_connected(7, now), Some(("ann", 7)));
    assert_eq!(pool.need(), None);
}

#[test]
fn a_server_goes_to_another_part_when_its_client_has_waited_longer() {
    let (mut pool, now) = (pool_of(1), epoch());
    let need = |since| Need {
        clients: 1,
        since,
        is_urgent: false,
    };
    assert_eq!(pool.goes_elsewhere_at(need(now)), Some(now + PATIENCE));
    let urgent = Need {
        is_urgent: true,
        ..need(now)
    };
    assert_eq!(pool.goes_elsewhere_at(urgent), Some(now));
    let later = now + OVERTAKING;
    assert_eq!(waits(&mut pool, "ann", later), 1);
    assert_eq!(pool.goes_elsewhere_at(urgent), None, "not long enough");
    let mut pool = pool_of(1);
    let later = later + Duration::from_nanos(1);
    assert_eq!(waits(&mut pool, "ann", later), 1);
    assert_eq!(pool.goes_elsewhere_at(need(now)), Some(now));
}

#[test]
fn a_server_that_moves_in_serves_or_rests() {
    let now = epoch();
    let mut from = rested(limits_of(2), &[now, now]);
    assert_eq!(from.take_for_another(), Some((2, now)));
    assert_eq!(from.resting_count(), 1);
    let mut to = pool_of(2);
    assert_eq!(to.on_moved_in(2, now, now), None);
    assert_eq!(to.checkout(|| "ann", now), Checkout::Use(2));
    assert_eq!(to.checkout(|| "bob", now), Checkout::Wait);
    assert_eq!(to.on_moved_in(1, now, now), Some(("bob", 1)));
    assert_eq!(to.occupancy(now).in_use, 2);
}

#[test]
fn a_server_that_moves_in_is_checked_where_it_has_rested_for_long() {
    let now = epoch();
    let limits = Limits {
        check_after: Some(SECOND),
        ..limits_of(1)
    };
    let mut pool = Pool::<u32, _>::new(limits);
    assert_eq!(pool.checkout(|| "ann", now + SECOND), Checkout::Wait);
    assert_eq!(pool.on_moved_in(7, now, now + SECOND), None);
    assert_eq!(pool.next_step(true, now + SECOND), Some(Step::Check(7)));
}

#[test]
fn who_may_be_served_by_another_part_is_not_turned_away() {
    let (mut pool, now) = (pool_of(2), epoch());
    assert_eq!(waits(&mut pool, "ann", now), 1);
    pool.set_all_servers(2);
    let refused = ConnectOutcome::Refused;
    assert_eq!(
        pool.on_connect_failed(refused, now),
        Vec::<&'static str>::new()
    );
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Wait);
    pool.set_all_servers(0);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::LoginFailing);
}
