use super::*;

fn epoch() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test pretends from some instant on"
    )]
    Instant::now()
}

fn pool_of(size: usize) -> Pool<u32, &'static str> {
    Pool::new(Limits {
        size,
        max_waiting: 3,
        checkout_timeout: Some(Duration::from_secs(2)),
        server_idle_timeout: Some(Duration::from_secs(600)),
        server_lifetime: Duration::from_secs(3600),
    })
}

/// A connection was made, and goes to whoever waits.
fn connected(
    pool: &mut Pool<u32, &'static str>,
    server: u32,
    now: Instant,
) -> Option<(&'static str, u32)> {
    pool.on_connected();
    pool.checkin(server, now)
}

#[test]
fn the_longest_waiting_client_is_served_first() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Wait);
    assert_eq!(connected(&mut pool, 7, now), Some(("ann", 7)));
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Wait);
    assert_eq!(pool.checkin(7, now), Some(("bob", 7)));
    assert_eq!(pool.checkin(7, now), Some(("cyd", 7)));
    assert_eq!(pool.checkin(7, now), None);
    assert_eq!(pool.checkout(|| "dan", now), Checkout::Use(7));
}

#[test]
fn the_most_recently_used_server_is_used_again() {
    let (mut pool, now) = (pool_of(2), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Connect);
    assert_eq!(connected(&mut pool, 1, now), Some(("ann", 1)));
    assert_eq!(connected(&mut pool, 2, now), Some(("bob", 2)));
    assert_eq!(pool.checkin(1, now), None);
    assert_eq!(pool.checkin(2, now), None);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Use(2));
}

#[test]
fn no_more_connections_are_made_than_clients_wait_for() {
    let (mut pool, now) = (pool_of(5), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(connected(&mut pool, 1, now), Some(("ann", 1)));
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Connect);
    assert_eq!(pool.checkin(1, now), Some(("bob", 1)));
    assert_eq!(
        pool.checkout(|| "cyd", now),
        Checkout::Wait,
        "the connection meant for bob is still coming"
    );
    assert_eq!(connected(&mut pool, 2, now), Some(("cyd", 2)));
}

#[test]
fn the_queue_has_an_end() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Wait);
    assert_eq!(pool.checkout(|| "cyd", now), Checkout::Wait);
    assert_eq!(pool.checkout(|| "dan", now), Checkout::QueueFull);
}

#[test]
fn a_lost_server_is_replaced_for_those_who_wait() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(connected(&mut pool, 1, now), Some(("ann", 1)));
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Wait);
    assert!(pool.on_lost(), "bob needs another one");
    assert_eq!(connected(&mut pool, 2, now), Some(("bob", 2)));
    assert!(!pool.on_lost(), "nobody waits");
    assert_eq!(pool.occupancy(), Occupancy::default());
}

#[test]
fn those_who_wait_are_told_when_no_server_can_be_had() {
    let (mut pool, now) = (pool_of(2), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Connect);
    assert_eq!(
        pool.on_connect_failed(),
        Vec::<&str>::new(),
        "another attempt is under way"
    );
    assert_eq!(pool.on_connect_failed(), ["ann", "bob"]);
}

#[test]
fn those_who_wait_go_on_waiting_while_some_server_is_in_use() {
    let (mut pool, now) = (pool_of(2), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(connected(&mut pool, 1, now), Some(("ann", 1)));
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Connect);
    assert_eq!(pool.on_connect_failed(), Vec::<&str>::new());
    assert_eq!(pool.checkin(1, now), Some(("bob", 1)));
}

#[test]
fn a_connection_that_could_not_be_made_is_tried_again_for_who_still_waits() {
    let (mut pool, now) = (pool_of(2), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(connected(&mut pool, 1, now), Some(("ann", 1)));
    assert!(!pool.retries(), "nobody waits");
    assert_eq!(pool.checkout(|| "bob", now), Checkout::Connect);
    assert!(!pool.retries(), "it is on its way");
    assert_eq!(pool.on_connect_failed(), Vec::<&str>::new());
    assert!(pool.retries());
    assert_eq!(connected(&mut pool, 2, now), Some(("bob", 2)));
    assert_eq!(pool.checkout(|| "eve", now), Checkout::Wait);
    assert!(!pool.retries(), "there are as many as there may be");
}

#[test]
fn a_client_waits_no_longer_than_the_timeout() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    assert_eq!(
        pool.checkout(|| "bob", now + Duration::from_secs(1)),
        Checkout::Wait
    );
    assert_eq!(
        pool.remove_overdue(now + Duration::from_millis(1999)),
        Vec::<&str>::new()
    );
    assert_eq!(pool.remove_overdue(now + Duration::from_secs(2)), ["ann"]);
    assert_eq!(pool.oldest_wait(), Some(now + Duration::from_secs(1)));
}

#[test]
fn a_client_that_left_is_not_given_a_server() {
    let (mut pool, now) = (pool_of(1), epoch());
    assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
    pool.forget(|waiter| *waiter == "ann");
    assert_eq!(connected(&mut pool, 1, now), None);
    assert_eq!(
        pool.occupancy(),
        Occupancy {
            idle: 1,
            ..Occupancy::default()
        }
    );
}

#[test]
fn servers_that_idle_too_long_or_are_too_old_are_taken_out() {
    let (mut pool, now) = (pool_of(2), epoch());
    for server in [1, 2] {
        assert_eq!(pool.checkout(|| "ann", now), Checkout::Connect);
        connected(&mut pool, server, now).unwrap();
    }
    assert_eq!(pool.checkin(1, now), None);
    assert_eq!(pool.checkin(2, now + Duration::from_secs(500)), None);
    let later = now + Duration::from_secs(600);
    assert_eq!(pool.remove_aged(|_| later, later), [1]);
    assert_eq!(
        pool.remove_aged(|_| later - Duration::from_secs(3600), later),
        [2]
    );
}
