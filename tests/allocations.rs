//! What a query allocates once its session runs: nothing, unless it sets the trace context. Counted over the whole process, proxy and peers together, with
//! annotation, metrics and slow-query detection switched on.

#![allow(clippy::unwrap_used)]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use pgspan::app::App;
use pgspan::config::{Checked, Config};
use pgspan::reload::{Refused, Source};
use pgspan::session::tally::ANNOTATION_OUTCOMES;
use pgspan::telemetry::log::{LINE_QUEUE, Lines};
use pgspan::telemetry::registry::{MetricLabels, Registry};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::messages::{
    Message, bind, bind_complete, command_complete, describe_portal, execute, parse,
    parse_complete, query, ready, row, row_description, startup, sync,
};
use support::scripted::ScriptedServer;
use support::wire::Wire;
use support::{PATIENCE, TRACEPARENT, now};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Nobody asks for another configuration.
struct NeverRead;

impl Source for NeverRead {
    fn read(&self) -> Result<Checked, Refused> {
        Err(Refused("there is one only".into()))
    }

    fn set(&self, _: &str, _: &str) -> Result<Option<Checked>, Refused> {
        self.read().map(Some)
    }
}

/// Exchanges that are counted.
const COUNTED: usize = 10_000;

/// Exchanges before the counting: buffers reach their size in them.
const WARM_UP: usize = 200;

/// What the proxy allocates meanwhile without a query: its round through all pools, once a second, allocates one list.
/// Far below one for each query, and far above the seconds that the slowest machine takes.
const HOUSEKEEPING: usize = COUNTED / 50;

/// What a SET of the trace context costs: it is kept, its answer made, and the text around it sent without it.
const OF_A_SET: usize = 11;

/// One test, as the count is the process's: what runs beside it would be counted too.
#[test]
fn ten_thousand_queries_allocate_nothing() {
    let server = ScriptedServer::start();
    let proxy = Proxy::start(server.port());
    let rows = || row(&[Some("1")]);

    let simple = Exchange {
        name: "simple",
        request: bytes([query("SELECT abalance FROM accounts WHERE aid = 1;")]),
        reply: bytes([
            row_description(&["abalance"]),
            rows(),
            command_complete("SELECT 1"),
            ready(b'I'),
        ]),
    };
    let traced = Exchange {
        name: "simple, each query in a trace of its own",
        request: bytes([query(&format!(
            "SET pgspan.traceparent = '{TRACEPARENT}'; SELECT abalance FROM accounts WHERE aid = 1"
        ))]),
        reply: bytes([
            command_complete("SET"),
            row_description(&["abalance"]),
            rows(),
            command_complete("SELECT 1"),
            ready(b'I'),
        ]),
    };
    let literal = Exchange {
        name: "simple, a text of its own each time",
        request: bytes([query("SELECT abalance FROM accounts WHERE aid = 00000;")]),
        reply: simple.reply.clone(),
    };
    let updating = Exchange {
        name: "simple, without rows",
        request: bytes([query("UPDATE accounts SET abalance = 2 WHERE aid = 1")]),
        reply: bytes([command_complete("UPDATE 1"), ready(b'I')]),
    };
    let extended = Exchange {
        name: "extended",
        request: bytes([
            parse("", "SELECT abalance FROM accounts WHERE aid = $1"),
            bind("", "", &[Some("1")]),
            describe_portal(""),
            execute("", 0),
            sync(),
        ]),
        reply: bytes([
            parse_complete(),
            bind_complete(),
            row_description(&["abalance"]),
            rows(),
            command_complete("SELECT 1"),
            ready(b'I'),
        ]),
    };
    let prepared = Exchange {
        name: "prepared",
        request: bytes([
            bind("", "s1", &[Some("1")]),
            describe_portal(""),
            execute("", 0),
            sync(),
        ]),
        reply: bytes([
            bind_complete(),
            row_description(&["abalance"]),
            rows(),
            command_complete("SELECT 1"),
            ready(b'I'),
        ]),
    };

    let mut client = proxy.client();
    // The server is made for the first query.
    client.write_all(&simple.request).unwrap();
    serve(&server);
    simple.receive(&mut client, &mut vec![0; simple.reply.len()]);
    client
        .write_all(&bytes([
            parse("s1", "SELECT abalance FROM accounts WHERE aid = $1"),
            sync(),
        ]))
        .unwrap();
    let parsed = bytes([parse_complete(), ready(b'I')]);
    client.read_exact(&mut vec![0; parsed.len()]).unwrap();

    for exchange in [&simple, &literal, &updating, &extended, &prepared] {
        let count = exchange.allocations(&mut client);
        assert!(
            count < HOUSEKEEPING,
            "{}: {count} allocations",
            exchange.name
        );
    }
    let count = traced.allocations(&mut client);
    assert!(
        count < COUNTED * OF_A_SET + HOUSEKEEPING,
        "{}: {count} allocations",
        traced.name
    );
}

/// What a client says again and again, and what it must hear each time.
struct Exchange {
    name: &'static str,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Exchange {
    /// Allocations and reallocations in [`COUNTED`] exchanges.
    fn allocations(&self, client: &mut TcpStream) -> usize {
        let mut reply = vec![0; self.reply.len()];
        let mut request = self.request.clone();
        let mut run = |number| {
            count_in(&mut request, number);
            client.write_all(&request).unwrap();
            self.receive(client, &mut reply);
        };
        (0..WARM_UP).for_each(&mut run);
        let region = Region::new(ALLOCATOR);
        (0..COUNTED).for_each(&mut run);
        let change = region.change();
        change.allocations + change.reallocations
    }

    fn receive(&self, client: &mut TcpStream, reply: &mut [u8]) {
        client.read_exact(reply).unwrap();
        assert!(reply == self.reply, "{}: another reply", self.name);
    }
}

/// Writes a number in place of five zeros, where they stand.
fn count_in(request: &mut [u8], number: usize) {
    let zeros = request.windows(7).position(|part| {
        part.starts_with(b" ") && part.ends_with(b";") && part[1..6].iter().all(u8::is_ascii_digit)
    });
    if let Some(at) = zeros {
        for (power, digit) in request[at + 1..at + 6].iter_mut().rev().enumerate() {
            *digit = b'0' + (number / 10_usize.pow(power as u32) % 10) as u8;
        }
    }
}

/// Answers each message of the next connection until its end, without an allocation.
fn serve(server: &ScriptedServer) {
    let mut stream = server.connection().stream().try_clone().unwrap();
    stream.set_read_timeout(None).unwrap();
    thread::spawn(move || {
        let data: Vec<u8> = bytes([row(&[Some("1")]), command_complete("SELECT 1")]);
        let description = bytes([row_description(&["abalance"])]);
        let updated = bytes([command_complete("UPDATE 1")]);
        let (parsed, bound, idle) = (
            bytes([parse_complete()]),
            bytes([bind_complete()]),
            bytes([ready(b'I')]),
        );
        let mut request = vec![0; 1 << 16];
        let mut reply = Vec::with_capacity(1 << 16);
        let mut filled = 0;
        while let Ok(read @ 1..) = stream.read(&mut request[filled..]) {
            filled += read;
            let mut used = 0;
            while let Some(head) = request[used..filled].first_chunk::<5>() {
                let length = 1 + u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if used + length > filled {
                    break;
                }
                let body = &request[used + 5..used + length];
                match head[0] {
                    b'Q' if body.starts_with(b"UPDATE") => {
                        reply.extend_from_slice(&updated);
                        reply.extend_from_slice(&idle);
                    }
                    b'Q' => {
                        reply.extend_from_slice(&description);
                        reply.extend_from_slice(&data);
                        reply.extend_from_slice(&idle);
                    }
                    b'P' => reply.extend_from_slice(&parsed),
                    b'B' => reply.extend_from_slice(&bound),
                    b'D' => reply.extend_from_slice(&description),
                    b'E' => reply.extend_from_slice(&data),
                    b'S' => reply.extend_from_slice(&idle),
                    _ => {}
                }
                used += length;
            }
            request.copy_within(used..filled, 0);
            filled -= used;
            if stream.write_all(&reply).is_err() {
                return;
            }
            reply.clear();
        }
    });
}

/// The proxy, inside this process.
struct Proxy {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
    _app: App,
}

impl Proxy {
    fn start(port: u16) -> Self {
        let text = format!(
            "listen.address = \"127.0.0.1:0\"\nhttp.address = \"\"\nauth.method = \"trust\"\n\
             log.level = \"error\"\npool.size = 1\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {port}\ntags = {{ application = \"pay\" }}\n\
             [users.ann]\n"
        );
        let unread = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let checked = Config::from_toml(&text, "config.toml", &|_| None, &unread).unwrap();
        let labels = MetricLabels {
            annotation_reasons: ANNOTATION_OUTCOMES,
            pgbouncer_version: "".into(),
        };
        let registry = Arc::new(Registry::new(labels, now()));
        let process = Arc::clone(&registry.process);
        let lines = Lines::start(std::io::sink(), LINE_QUEUE, process).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let app = runtime
            .block_on(App::start(
                checked.config,
                Box::new(NeverRead),
                registry,
                lines,
            ))
            .unwrap();
        Self {
            address: app.listen_address().unwrap(),
            _runtime: runtime,
            _app: app,
        }
    }

    /// A client that is logged in.
    fn client(&self) -> TcpStream {
        let mut wire = Wire::connect(self.address);
        wire.send(startup(&[("user", "ann"), ("database", "app")]));
        while wire.receive().0[0] != b'Z' {}
        let stream = wire.stream().try_clone().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn bytes<const N: usize>(messages: [Message; N]) -> Vec<u8> {
    messages.into_iter().flat_map(|message| message.0).collect()
}
