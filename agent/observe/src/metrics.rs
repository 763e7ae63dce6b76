//! Metrics in Prometheus' text format, over plain HTTP.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use ambit_daemon::http::{ConnectionBound, HttpBounds, HttpResponse};

/// The bounds for scrapers.
const BOUNDS: HttpBounds = HttpBounds {
    name: "a metrics",
    connections: ConnectionBound::Queued(8),
    head_timeout: Duration::from_secs(5),
    exchange_timeout: Some(Duration::from_secs(30)),
    accept_pause: Duration::from_millis(100),
};

/// `Content-Type` of OpenMetrics.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Metrics of one name.
#[derive(Clone, PartialEq, Debug)]
pub struct MetricFamily {
    /// The name; counters get the suffix `_total`.
    pub name: &'static str,
    /// What it counts, and in which unit.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// The numbers with their labels. Labels must have a bounded set of values.
    pub samples: Vec<MetricSample>,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that rises and falls.
    Gauge,
}

/// A number with its labels.
#[derive(Clone, PartialEq, Debug)]
pub struct MetricSample {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: u64,
}

impl MetricSample {
    /// A number without labels.
    pub fn plain(value: u64) -> Self {
        Self {
            labels: Vec::new(),
            value,
        }
    }

    /// A number with one label.
    pub fn labelled(name: &'static str, label: impl Into<String>, value: u64) -> Self {
        Self {
            labels: vec![(name, label.into())],
            value,
        }
    }
}

/// The source of the numbers.
pub trait MetricsState: Send + Sync + 'static {
    /// The current numbers.
    fn families(&self) -> impl Future<Output = Vec<MetricFamily>> + Send;
}

/// Families that were gathered for one scrape.
#[derive(Debug)]
struct Gathered(Vec<MetricFamily>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let (gauge, counter) = (ConstGauge::new(0_u64), ConstCounter::new(0_u64));
            let kind = match family.kind {
                MetricKind::Gauge => gauge.metric_type(),
                MetricKind::Counter => counter.metric_type(),
            };
            let mut metrics = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in &family.samples {
                let labels: Vec<_> = sample.labels.iter().map(escaped).collect();
                let one = metrics.encode_family(&labels)?;
                match family.kind {
                    MetricKind::Gauge => ConstGauge::new(sample.value).encode(one)?,
                    MetricKind::Counter => ConstCounter::new(sample.value).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

/// A label whose value is escaped: the encoder writes values as they are.
fn escaped((name, value): &(&'static str, String)) -> (&'static str, String) {
    let value = value
        .replace('\\', r"\\")
        .replace('"', r#"\""#)
        .replace('\n', r"\n");
    (name, value)
}

/// Opens the listener for metrics.
///
/// # Errors
/// If the address cannot be used.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers `GET /metrics` while it is polled.
pub async fn serve<S: MetricsState>(listener: TcpListener, state: Arc<S>) {
    let service = move |request| respond(Arc::clone(&state), request);
    ambit_daemon::http::serve(listener, BOUNDS, service).await;
}

async fn respond<S: MetricsState, B>(state: Arc<S>, request: Request<B>) -> HttpResponse {
    let mut response = Response::new(Full::default());
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match text(state.families().await) {
            Ok(text) => {
                *response.body_mut() = Full::new(Bytes::from(text));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, OPEN_METRICS);
            }
            Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        },
        (_, "/metrics") => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

fn text(families: Vec<MetricFamily>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gathered(families)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Fixed;

    impl MetricsState for Fixed {
        async fn families(&self) -> Vec<MetricFamily> {
            let family = |name, kind, samples| MetricFamily {
                name,
                help: "Help",
                kind,
                samples,
            };
            let odd = MetricSample::labelled("reason", "a\"b\n", 2);
            vec![
                family(
                    "ambit_held",
                    MetricKind::Gauge,
                    vec![MetricSample::plain(3)],
                ),
                family("ambit_refused", MetricKind::Counter, vec![odd]),
            ]
        }
    }

    async fn get(request: &str) -> String {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(Fixed)));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn numbers_are_shown_with_their_labels() {
        let answer = get("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        for line in [
            "# TYPE ambit_held gauge",
            "ambit_held{} 3",
            "# TYPE ambit_refused counter",
            "ambit_refused_total{reason=\"a\\\"b\\n\"} 2",
        ] {
            assert!(answer.lines().any(|one| one == line), "{line}: {answer}");
        }
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        let other = get("GET /other HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        let post = get("POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    }
}
