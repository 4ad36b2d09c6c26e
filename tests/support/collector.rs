//! A trace collector for tests: OTLP over gRPC or over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use pgspan::dev::collector::{Collector, Kept, ReceivedSpan};
use prost::Message;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
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

    /// The same behind TLS, at the address returned: with `collector.crt`, which the authority issues for `localhost`. With
    /// `wants_certificate` a client must have one of the authority's. Runs in a thread until the process ends.
    pub(crate) fn behind_tls(&self, authority: &Authority, wants_certificate: bool) -> String {
        authority.issue("collector", "collector", &["localhost"]);
        let certificates = |file: &str| -> Vec<CertificateDer<'static>> {
            let certificates = CertificateDer::pem_file_iter(authority.path(file)).unwrap();
            certificates.map(Result::unwrap).collect()
        };
        let key = PrivateKeyDer::from_pem_file(authority.path("collector.key")).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients = match wants_certificate {
            true => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates("ca.crt"));
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .unwrap()
            }
            false => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates("collector.crt"), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let behind = self.endpoint.strip_prefix("http://").unwrap();
        let behind = behind.trim_end_matches('/').to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    let (acceptor, behind) = (acceptor.clone(), behind.clone());
                    tokio::spawn(async move {
                        // One that does not trust the other leaves.
                        let Ok(mut client) = acceptor.accept(client).await else {
                            return;
                        };
                        let collector = tokio::net::TcpStream::connect(behind).await;
                        let mut collector = collector.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut collector).await;
                    });
                }
            });
        });
        format!("https://localhost:{port}")
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
