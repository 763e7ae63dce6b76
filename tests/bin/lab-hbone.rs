//! `lab-hbone JSON`: opens a TLS connection, sends one request over HTTP/2 and, if the answer is 200,
//! `GET /` through the tunnel; or other data right behind the request, before any answer. Prints the result as JSON. It trusts any server.

use std::error::Error;
use std::time::Duration;

use ambit_tests::{Credentials, tls_client};
use bytes::Bytes;
use http::{Method, Request, Uri};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error>;

/// The limit for the whole call.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let told = std::env::args().nth(1).ok_or("usage: lab-hbone JSON")?;
    let told: Value = serde_json::from_str(&told)?;
    let said = match tokio::time::timeout(PATIENCE, call(&told)).await {
        Ok(Ok(said)) => said,
        Ok(Err(failure)) => json!({"failure": failure.to_string()}),
        Err(late) => return Err(late.into()),
    };
    println!("{said}");
    Ok(())
}

async fn call(told: &Value) -> Result<Value, Failure> {
    let stream = TcpStream::connect(text(told, "to")?).await?;
    let credentials = credentials(told)?;
    let config = tls_client(credentials.as_ref())?;
    let name = ServerName::try_from("mesh.invalid")?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut client = client.ready().await?;
    let is_tunnel = told["method"] == "CONNECT";
    let (answer, mut send) = client.send_request(request(told)?, !is_tunnel)?;
    let early = told["early"].as_str();
    if let Some(data) = early {
        send.send_data(Bytes::copy_from_slice(data.as_bytes()), true)?;
    }
    let answer = answer.await?;
    let status = answer.status();
    let mut received = Vec::new();
    if status.is_success() && is_tunnel {
        if early.is_none() {
            let request = "GET / HTTP/1.1\r\nhost: tunnel\r\nconnection: close\r\n\r\n";
            send.send_data(Bytes::from_static(request.as_bytes()), true)?;
        }
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
    }
    Ok(json!({"status": status.as_u16(), "answer": body_of(&received)}))
}

fn request(told: &Value) -> Result<Request<()>, Failure> {
    let method: Method = text(told, "method")?.parse()?;
    let authority = text(told, "authority")?;
    let uri = if method == Method::CONNECT {
        Uri::builder().authority(authority).build()?
    } else {
        Uri::builder()
            .scheme("https")
            .authority(authority)
            .path_and_query("/")
            .build()?
    };
    let mut request = Request::builder().method(method).uri(uri);
    for header in told["headers"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (header[0].as_str(), header[1].as_str()) {
            request = request.header(name, value);
        }
    }
    Ok(request.body(())?)
}

/// The JSON in an HTTP/1 response.
fn body_of(received: &[u8]) -> Value {
    let text = String::from_utf8_lossy(received);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.trim());
    body.and_then(|body| serde_json::from_str(body).ok())
        .unwrap_or(Value::Null)
}

fn credentials(told: &Value) -> Result<Option<Credentials>, Failure> {
    if told["certificate"].is_null() {
        return Ok(None);
    }
    Ok(Some(Credentials {
        certificate: text(told, "certificate")?.into(),
        key: text(told, "key")?.into(),
    }))
}

fn text<'a>(told: &'a Value, field: &str) -> Result<&'a str, Failure> {
    told[field]
        .as_str()
        .ok_or_else(|| format!("no {field}").into())
}
