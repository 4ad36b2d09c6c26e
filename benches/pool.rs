//! What it costs to be given a server and to give it back; and the bench that the baseline's times are told in.

use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use pgspan::pool::{Checkout, Limits, Pool, Turn};

const LIMITS: Limits = Limits {
    size: NonZeroUsize::new(SERVERS),
    min_size: 0,
    reserve_size: 0,
    reserve_timeout: None,
    max_waiting: 1000,
    checkout_timeout: Some(Duration::from_secs(120)),
    wait_notice: None,
    server_idle_timeout: Some(Duration::from_secs(600)),
    server_lifetime: Duration::from_secs(3600),
    login_retry: Duration::from_secs(15),
    check_after: Some(Duration::from_secs(30)),
    connects_in_turn: false,
    turn: Turn::LastUsed,
};

const SERVERS: usize = 20;

/// A pool whose servers are all connected and idle.
fn pool(now: Instant) -> Pool<usize, usize> {
    let mut pool = Pool::new(LIMITS);
    for server in 0..SERVERS {
        pool.on_connecting();
        assert_eq!(pool.on_connected(server, now), None);
    }
    pool
}

fn checkout(criterion: &mut Criterion) {
    #[expect(clippy::disallowed_methods, reason = "a bench is its own edge")]
    let now = Instant::now();
    let mut idle = pool(now);
    criterion.bench_function("pool/an idle server and back", |bencher| {
        bencher.iter(|| match idle.checkout(|| 0, black_box(now)) {
            Checkout::Use(server) => assert_eq!(idle.checkin(server, now), None),
            outcome => panic!("{outcome:?}"),
        });
    });

    let mut busy = pool(now);
    for _ in 0..SERVERS {
        assert!(matches!(busy.checkout(|| 0, now), Checkout::Use(_)));
    }
    for waiter in 0..80 {
        assert_eq!(busy.checkout(|| waiter, now), Checkout::Wait);
    }
    criterion.bench_function("pool/a server from hand to hand, 80 waiting", |bencher| {
        bencher.iter(|| {
            let (waiter, server) = busy.checkin(0, black_box(now)).expect("somebody waits");
            assert_eq!(busy.checkout(|| waiter, now), Checkout::Wait);
            server
        });
    });
}

fn calibration(criterion: &mut Criterion) {
    let bytes = vec![0x5a; 4096];
    criterion.bench_function("calibration", |bencher| {
        bencher.iter(|| {
            let mut hasher = DefaultHasher::new();
            hasher.write(black_box(&bytes));
            hasher.finish()
        });
    });
}

criterion_group!(benches, checkout, calibration);
criterion_main!(benches);
