//! Where spans go: `[otlp]`, and the OTEL_* variables that override it.
//!
//! Sources: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>,
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::choices::{Compression, OtlpProtocol};
use super::file::OtlpTable;
use super::findings::Findings;
use super::resolve::{Surroundings, read_file};
use super::secret::Secret;
use super::tls::{Authorities, Secrecy, Tls, TlsMode};

/// Where spans go and how they wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// The URL that batches are sent to, its path included; `None`: no spans leave.
    pub endpoint: Option<Box<str>>,
    /// What is spoken there.
    pub protocol: OtlpProtocol,
    /// Whether batches are compressed.
    pub compression: Compression,
    /// Sent with every batch: names in lower case, sorted, and values that may be keys to the collector.
    pub headers: Vec<(Box<str>, Secret)>,
    /// How an `https://` endpoint is known, by name; without authorities of its own by the system's.
    pub tls: Tls,
    /// The most spans that wait; further ones are dropped and counted.
    pub queue_size: NonZeroUsize,
    /// How long a batch waits to become full.
    pub schedule_delay: Duration,
    /// How long the collector has to take a batch.
    pub export_timeout: Duration,
    /// The most spans in a batch, never more than wait.
    pub max_export_batch_size: NonZeroUsize,
    /// How many queries get spans in one second; 0: without limit.
    pub max_spans_per_second: usize,
    /// The attributes that spans may have; a name that ends with `*` stands for all that begin so.
    pub include_attributes: Vec<Box<str>>,
    /// Those among them that they may not have.
    pub exclude_attributes: Vec<Box<str>>,
    /// The resource's `service.name`.
    pub service_name: Box<str>,
    /// The resource's other attributes, sorted by name.
    pub resource_attributes: Vec<(Box<str>, Box<str>)>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::Grpc,
            compression: Compression::None,
            headers: Vec::new(),
            tls: Tls::of(TlsMode::VerifyFull),
            queue_size: const { NonZeroUsize::new(1000).expect("not zero") },
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(3),
            max_export_batch_size: const { NonZeroUsize::new(512).expect("not zero") },
            max_spans_per_second: 1000,
            include_attributes: vec!["*".into()],
            exclude_attributes: Vec::new(),
            service_name: "pgspan".into(),
            resource_attributes: Vec::new(),
        }
    }
}

impl Otlp {
    /// What the table says, and the variables before it.
    pub(super) fn resolve(
        table: OtlpTable,
        surroundings: &Surroundings<'_>,
        findings: &mut Findings,
    ) -> Self {
        let written = [table.ca.clone(), table.cert.clone(), table.key.clone()];
        let mut otlp = Self::from_table(table, surroundings, findings);
        let mut variables = Variables {
            environment: surroundings.environment,
            findings,
        };
        otlp.override_by(&mut variables);
        otlp.read_tls_files(written, surroundings, findings);
        otlp.max_export_batch_size = otlp.max_export_batch_size.min(otlp.queue_size);
        otlp
    }

    /// Leaves the endpoint as it is written: which path it gets depends on the protocol, and that on the variables.
    fn from_table(
        table: OtlpTable,
        surroundings: &Surroundings<'_>,
        findings: &mut Findings,
    ) -> Self {
        let default = Self::default();
        let endpoint = table.endpoint.filter(|endpoint| !endpoint.is_empty());
        if let Some(Err(why)) = endpoint.as_deref().map(Url::parse) {
            findings.error(&["otlp", "endpoint"], why);
        }
        let queue_size = table.queue_size.map_or(default.queue_size, |size| size.0);
        if let Some(size) = &table.max_export_batch_size
            && size.0 > queue_size
        {
            let message = format!("a batch cannot be larger than the queue of {queue_size}");
            findings.error(&["otlp", "max_export_batch_size"], message);
        }
        if table.service_name.as_deref() == Some("") {
            findings.error(&["otlp", "service_name"], "it cannot be empty");
        }
        let mut headers = BTreeMap::new();
        for (name, value) in table.headers {
            let path = ["otlp", "headers", &name];
            if !is_header_name(&name) {
                findings.error(&path, "this is not a name that a header can have");
            }
            match surroundings.expand(&value.0) {
                Ok(value) if is_header_value(&value) => {
                    headers.insert(name.to_ascii_lowercase().into(), value);
                }
                Ok(_) => findings.error(&path, "its value is not printable ASCII"),
                Err(why) => findings.error(&path, why),
            }
        }
        Self {
            endpoint,
            protocol: table.protocol.unwrap_or(default.protocol),
            compression: table.compression.unwrap_or(default.compression),
            headers: headers.into_iter().collect(),
            tls: default.tls,
            queue_size,
            schedule_delay: table
                .schedule_delay
                .map_or(default.schedule_delay, |it| it.0),
            export_timeout: table
                .export_timeout
                .map_or(default.export_timeout, |it| it.0),
            max_export_batch_size: table
                .max_export_batch_size
                .map_or(default.max_export_batch_size, |size| size.0),
            max_spans_per_second: table
                .max_spans_per_second
                .map_or(default.max_spans_per_second, |it| it.0),
            include_attributes: table
                .include_attributes
                .unwrap_or(default.include_attributes),
            exclude_attributes: table
                .exclude_attributes
                .unwrap_or(default.exclude_attributes),
            service_name: table.service_name.unwrap_or(default.service_name),
            resource_attributes: table.resource_attributes.into_iter().collect(),
        }
    }

    fn override_by(&mut self, variables: &mut Variables<'_, '_>) {
        let protocol = [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ];
        if let Some(protocol) = variables.first(protocol, parse_protocol) {
            self.protocol = protocol;
        }
        let compression = [
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ];
        if let Some(compression) = variables.first(compression, parse_compression) {
            self.compression = compression;
        }
        let timeout = [
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        ];
        if let Some(timeout) = variables.first(timeout, parse_milliseconds) {
            self.export_timeout = timeout;
        }
        let headers = [
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ];
        if let Some(headers) = variables.first(headers, parse_headers) {
            self.headers = headers;
        }
        if let Some(delay) = variables.first(["OTEL_BSP_SCHEDULE_DELAY"], parse_milliseconds) {
            self.schedule_delay = delay;
        }
        if let Some(size) = variables.first(["OTEL_BSP_MAX_QUEUE_SIZE"], parse_count) {
            self.queue_size = size;
        }
        if let Some(size) = variables.first(["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], parse_count) {
            self.max_export_batch_size = size;
        }
        if let Some(pairs) = variables.first(["OTEL_RESOURCE_ATTRIBUTES"], parse_pairs) {
            for (name, value) in pairs {
                if name == "service.name" {
                    self.service_name = value.into();
                } else {
                    self.resource_attributes.retain(|(key, _)| **key != *name);
                    self.resource_attributes.push((name.into(), value.into()));
                }
            }
            self.resource_attributes.sort();
        }
        if let Some(name) = variables.first(["OTEL_SERVICE_NAME"], |name| Ok(name.into())) {
            self.service_name = name;
        }
        self.override_endpoint(variables);
    }

    /// The files that the variables name, or else the table. One that is named and can't be read is an error: nobody is trusted
    /// instead.
    fn read_tls_files(
        &mut self,
        written: [Option<PathBuf>; 3],
        surroundings: &Surroundings<'_>,
        findings: &mut Findings,
    ) {
        const FILES: [(&str, [&str; 2], Secrecy); 3] = [
            (
                "ca",
                [
                    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
                    "OTEL_EXPORTER_OTLP_CERTIFICATE",
                ],
                Secrecy::Public,
            ),
            (
                "cert",
                [
                    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                ],
                Secrecy::Public,
            ),
            (
                "key",
                [
                    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
                    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
                ],
                Secrecy::Secret,
            ),
        ];
        let mut ca = None;
        let Tls { cert, key, .. } = &mut self.tls;
        for ((file, written), (name, variables, secrecy)) in
            [&mut ca, cert, key].into_iter().zip(written).zip(FILES)
        {
            let mut variables = Variables {
                environment: surroundings.environment,
                findings,
            }
            .first(variables, |path| Ok(PathBuf::from(path)));
            let named = variables.take().or(written);
            *file = named
                .filter(|path| !path.as_os_str().is_empty())
                .and_then(|path| {
                    read_file(&path, &["otlp", name], secrecy, surroundings, findings)
                });
        }
        self.tls.ca = ca.map(Authorities::Of);
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            findings.error(&["otlp", "cert"], "`cert` and `key` belong together");
        }
    }

    /// The signal's own endpoint is used as it is, the general one is a base; the file's gets the standard path if it has none.
    fn override_endpoint(&mut self, variables: &mut Variables<'_, '_>) {
        let is_disabled = variables.first(["OTEL_SDK_DISABLED"], parse_boolean) == Some(true)
            || variables.first(["OTEL_TRACES_EXPORTER"], parse_is_none) == Some(true);
        let protocol = self.protocol;
        let written = self.endpoint.take();
        if is_disabled {
            return;
        }
        let own = variables.first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"], |text| {
            Url::parse(text).map(|url| url.as_is())
        });
        let base = variables.first(["OTEL_EXPORTER_OTLP_ENDPOINT"], |text| {
            Url::parse(text).map(|url| url.as_base(protocol))
        });
        self.endpoint = own.or(base).or_else(|| {
            let url = Url::parse(written.as_deref()?).ok()?;
            Some(if url.path.trim_matches('/').is_empty() {
                url.as_base(protocol)
            } else {
                url.as_is()
            })
        });
    }
}

/// An address of a collector, in the parts that matter here.
struct Url<'a> {
    /// Scheme, host and port.
    origin: &'a str,
    path: &'a str,
}

impl<'a> Url<'a> {
    /// The reason does not repeat the address.
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        const FORM: &str = "expected an address such as \"http://127.0.0.1:4317\"";
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))
            .ok_or(FORM)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') || path.contains(['?', '#']) {
            return Err(
                "expected an address without password and query: keys belong into `headers`",
            );
        }
        if authority.is_empty() || !text.chars().all(|letter| letter.is_ascii_graphic()) {
            return Err(FORM);
        }
        let (origin, _) = text.split_at(text.len() - path.len());
        Ok(Self { origin, path })
    }

    fn as_is(&self) -> Box<str> {
        let path = if self.path.is_empty() { "/" } else { self.path };
        format!("{}{path}", self.origin).into()
    }

    fn as_base(&self, protocol: OtlpProtocol) -> Box<str> {
        match protocol {
            OtlpProtocol::Grpc => self.as_is(),
            OtlpProtocol::HttpProtobuf => {
                let base = self.path.trim_end_matches('/');
                format!("{}{base}/v1/traces", self.origin).into()
            }
        }
    }
}

/// Reads variables. An empty one counts as unset, a wrong one is ignored with a warning: so the specification says.
struct Variables<'a, 'f> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    findings: &'f mut Findings,
}

impl Variables<'_, '_> {
    /// The first of `names` that is set, if it can be read.
    fn first<T, const N: usize>(
        &mut self,
        names: [&'static str; N],
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        names.into_iter().find_map(|name| {
            let text = (self.environment)(name)?;
            let text = text.trim();
            if text.is_empty() {
                return None;
            }
            parse(text)
                .inspect_err(|why| self.findings.ignored_variable(name, why))
                .ok()
        })
    }
}

fn parse_protocol(text: &str) -> Result<OtlpProtocol, &'static str> {
    Ok(match text {
        "grpc" => OtlpProtocol::Grpc,
        "http/protobuf" => OtlpProtocol::HttpProtobuf,
        _ => return Err("expected `grpc` or `http/protobuf`"),
    })
}

fn parse_compression(text: &str) -> Result<Compression, &'static str> {
    Ok(match text {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        _ => return Err("expected `gzip` or `none`"),
    })
}

fn parse_milliseconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<u32>() {
        Ok(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds.into())),
        _ => Err("expected milliseconds, 1 or more"),
    }
}

fn parse_count(text: &str) -> Result<NonZeroUsize, &'static str> {
    text.parse()
        .map_err(|_| "expected a whole number of 1 or more")
}

fn parse_boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("expected `true` or `false`"),
    }
}

fn parse_is_none(text: &str) -> Result<bool, &'static str> {
    match text {
        "none" => Ok(true),
        "otlp" => Ok(false),
        _ => Err("expected `otlp` or `none`"),
    }
}

fn parse_headers(text: &str) -> Result<Vec<(Box<str>, Secret)>, &'static str> {
    let mut headers = BTreeMap::new();
    for (name, value) in parse_pairs(text)? {
        if !is_header_name(&name) || !is_header_value(&Secret::new(value.as_str())) {
            return Err("this is no header");
        }
        headers.insert(name.to_ascii_lowercase().into(), Secret::new(value));
    }
    Ok(headers.into_iter().collect())
}

/// `name=value,name=value`, names and values percent-encoded: <https://www.w3.org/TR/baggage/>. All or nothing.
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    const FORM: &str = "expected name=value,name=value with values percent-encoded";
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(FORM)?;
            let name = percent_decode(name.trim()).ok_or(FORM)?;
            let value = percent_decode(value.trim()).ok_or(FORM)?;
            if name.is_empty() {
                return Err(FORM);
            }
            Ok((name, value))
        })
        .collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if digits.starts_with('+') {
            return None;
        }
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

/// RFC 9110's token.
fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

fn is_header_value(value: &Secret) -> bool {
    value
        .expose()
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
