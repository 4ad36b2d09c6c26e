//! A trace collector for tests: OTLP over gRPC or over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use pgspan::dev::collector::{Collector, Kept, ReceivedSpan};
use prost::Message;

use super::{PATIENCE, eventually};

/// A running collector.
pub(crate) struct Otlp {
    endpoint: String,
    kept: Kept,
}

impl Otlp {
    /// Takes OTLP over gRPC. Runs in a thread until the process ends.
    pub(crate) fn grpc() -> Self {
        let (sender, started) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let collector = Collector::start().await.unwrap();
                sender
                    .send((collector.endpoint(), collector.kept().clone()))
                    .unwrap();
                std::future::pending::<()>().await;
            });
        });
        let (endpoint, kept) = started.recv().unwrap();
        Self { endpoint, kept }
    }

    /// Takes OTLP over HTTP with protobuf bodies. Runs in a thread until the process ends.
    pub(crate) fn http() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let kept = Kept::default();
        let taken = kept.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taken = taken.clone();
                thread::spawn(move || serve(&stream, &taken));
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            kept,
        }
    }

    /// What to configure as `otlp.endpoint`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn spans(&self) -> Vec<ReceivedSpan> {
        self.kept.spans()
    }

    /// The first span that fits, as soon as there is one.
    pub(crate) fn wait_for(&self, fits: impl Fn(&ReceivedSpan) -> bool) -> ReceivedSpan {
        eventually(|| self.spans().into_iter().find(&fits))
            .unwrap_or_else(|| panic!("no such span within {PATIENCE:?} among {:#?}", self.spans()))
    }
}

/// Answers requests of one connection until it ends.
fn serve(stream: &TcpStream, kept: &Kept) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut first_line = String::new();
        reader
            .read_line(&mut first_line)
            .ok()
            .filter(|read| *read > 0)?;
        assert!(
            first_line.starts_with("POST /v1/traces HTTP/1.1"),
            "{first_line}"
        );
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        kept.take(ExportTraceServiceRequest::decode(body.as_slice()).unwrap());
        let mut writer = stream;
        writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}
