//! Money moves between accounts while backends are killed, the server crashes, connections are cut and the proxy is restarted: what was
//! acknowledged is there, and no money came or went.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgspan::dev::postgres::Settings;
use tokio_postgres::{Client, NoTls};

use crate::support::postgres::{Postgres, started};
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::{eventually, now};

const CLIENTS: u64 = 8;
const ACCOUNTS: u64 = 6;
const BLOWS: u64 = 24;
const BETWEEN_BLOWS: Duration = Duration::from_millis(250);

/// What the clients share.
struct Bank {
    port: AtomicU16,
    is_closed: AtomicBool,
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
    failed: AtomicU64,
    cut: AtomicU64,
}

/// Numbers that look random, and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's MMIX generator.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_transfer_is_lost_whatever_breaks() {
    survives("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn none_is_lost_where_two_workers_share_the_pool() {
    survives("[workers]\ncount = 2\nmin_servers_each = 1\n").await;
}

async fn survives(workers: &str) {
    let postgres = started(Settings {
        // What is acknowledged has left the process that is killed.
        configuration: "synchronous_commit = on\nfull_page_writes = on\n",
        ..Settings::default()
    });
    for sql in ["CREATE ROLE app LOGIN", "CREATE DATABASE app OWNER app"] {
        postgres.psql("postgres", sql).unwrap();
    }
    let accounts = format!(
        "SET ROLE app; CREATE TABLE accounts AS SELECT id, 1000 AS balance FROM generate_series(0, {}) id; \
         CREATE TABLE transfers (id bigint PRIMARY KEY)",
        ACCOUNTS - 1
    );
    postgres.psql("app", &accounts).unwrap();
    let config = ConfigText::for_port(postgres.port()).and(
        "[pool]\nsize = 4\nserver_login_retry = \"50ms\"\ncheckout_timeout = \"2s\"\nserver_check_delay = \"100ms\"\n",
    );
    let config = config.and(workers);
    let mut proxy = Proxy::with(&config);
    let bank = Arc::new(Bank {
        port: AtomicU16::new(proxy.port()),
        is_closed: AtomicBool::new(false),
        next: AtomicU64::new(0),
        acknowledged: Mutex::default(),
        failed: AtomicU64::new(0),
        cut: AtomicU64::new(0),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(work(Arc::clone(&bank), Dice(number))))
        .collect();

    let (mut dice, mut killed, mut crashes, mut restarts) = (Dice(99), 0, 0, 0);
    for blow in 1..=BLOWS {
        tokio::time::sleep(BETWEEN_BLOWS).await;
        tokio::task::block_in_place(|| match blow {
            8 | 16 => {
                proxy.signal("KILL");
                proxy = Proxy::with(&config);
                bank.port.store(proxy.port(), Ordering::Relaxed);
                restarts += 1;
            }
            5 | 13 | 21 => crashes += u64::from(crash(&postgres)),
            _ => killed += kill_some(&postgres, dice.roll(3) + 1),
        });
    }
    bank.is_closed.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    let ask = |sql: &str| eventually(|| postgres.psql("app", sql).ok()).unwrap();
    let acknowledged = bank.acknowledged.lock().unwrap().clone();
    let there: BTreeSet<u64> = ask("SELECT id FROM transfers")
        .lines()
        .map(|id| id.parse().unwrap())
        .collect();
    println!(
        "{} transfers acknowledged, {} there, {} failed, {} cut off by their client; {killed} backends killed, {crashes} crashes of the \
         server, {restarts} of the proxy",
        acknowledged.len(),
        there.len(),
        bank.failed.load(Ordering::Relaxed),
        bank.cut.load(Ordering::Relaxed),
    );
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(
        ask("SELECT sum(balance) FROM accounts").trim(),
        (ACCOUNTS * 1000).to_string()
    );
    assert!(acknowledged.len() > 50, "hardly anything was tried");
    assert!(killed > 0 && crashes > 0 && restarts == 2);
    // Nobody is left in a transaction: all clients have gone.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert!(eventually(|| (ask(open).trim() == "0").then_some(())).is_some());
}

/// Kills backends of the application, as an administrator would.
fn kill_some(postgres: &Postgres, count: u64) -> u64 {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY random() LIMIT {count}) it"
    );
    // In the middle of a recovery there is nobody to kill.
    let killed = postgres.psql("postgres", &sql).unwrap_or_default();
    killed.lines().filter(|line| *line == "t").count() as u64
}

/// Kills a backend so that the server takes all others down with it and recovers. Whether there was one.
fn crash(postgres: &Postgres) -> bool {
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' LIMIT 1";
    let Ok(pid) = postgres.psql("postgres", sql) else {
        return false;
    };
    let Ok(pid) = pid.trim().parse::<u32>() else {
        return false;
    };
    let killed = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("kill -KILL {pid}"))
        .status();
    killed.unwrap().success()
}

/// A client that moves money until the bank closes; with a new connection whenever it has lost one.
async fn work(bank: Arc<Bank>, mut dice: Dice) {
    let started = now();
    while !bank.is_closed.load(Ordering::Relaxed) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the bank never closes"
        );
        let conninfo = format!(
            "host=127.0.0.1 port={} user=app dbname=app connect_timeout=3",
            bank.port.load(Ordering::Relaxed)
        );
        let Ok((client, connection)) = tokio_postgres::connect(&conninfo, NoTls).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        while !bank.is_closed.load(Ordering::Relaxed) {
            let id = bank.next.fetch_add(1, Ordering::Relaxed);
            // Now and then the connection is cut in the middle.
            let is_cut = dice.roll(20) == 0;
            match transfer(&client, id, &mut dice, is_cut).await {
                Ok(true) => drop(bank.acknowledged.lock().unwrap().insert(id)),
                Ok(false) => {
                    bank.cut.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(_) => {
                    bank.failed.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        connection.abort();
    }
}

/// Moves money from one account to another. Whether that was acknowledged; it is not where the client leaves in the middle.
async fn transfer(
    client: &Client,
    id: u64,
    dice: &mut Dice,
    is_cut: bool,
) -> Result<bool, tokio_postgres::Error> {
    // In the order of the accounts, or transfers would wait for each other for ever.
    let (low, high) = match (dice.roll(ACCOUNTS), dice.roll(ACCOUNTS - 1)) {
        (one, other) if other < one => (other, one),
        (one, other) => (one, other + 1),
    };
    let amount = dice.roll(100);
    let take = format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {low}");
    let give = format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {high}");
    let note = format!("INSERT INTO transfers VALUES ({id})");
    match dice.roll(3) {
        // Statement by statement, over the simple protocol.
        0 => {
            client.batch_execute("BEGIN").await?;
            client.batch_execute(&take).await?;
            if is_cut {
                return Ok(false);
            }
            client.batch_execute(&give).await?;
            client.batch_execute(&note).await?;
            client.batch_execute("COMMIT").await?;
        }
        // With prepared statements.
        1 => {
            client.execute("BEGIN", &[]).await?;
            client.execute(&take, &[]).await?;
            client.execute(&give, &[]).await?;
            if is_cut {
                return Ok(false);
            }
            client
                .execute(
                    "INSERT INTO transfers VALUES ($1)",
                    &[&i64::try_from(id).unwrap()],
                )
                .await?;
            client.execute("COMMIT", &[]).await?;
        }
        // All in one message.
        _ => {
            let all = format!("BEGIN; {take}; {give}; {note}; COMMIT");
            if is_cut {
                let query = client.batch_execute(&all);
                // Sent, perhaps, and left.
                let _ = tokio::time::timeout(Duration::from_micros(300), query).await;
                return Ok(false);
            }
            client.batch_execute(&all).await?;
        }
    }
    Ok(true)
}
