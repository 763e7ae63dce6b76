//! `lab-h2 JSON`: makes requests over one HTTP/2 connection without TLS, one after another or
//! concurrently, and prints the answers as JSON. Its argument is an `ambit_tests::Http2Call`.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The limit for each answer.
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let told = std::env::args().nth(1).ok_or("usage: lab-h2 JSON")?;
    let told: Value = serde_json::from_str(&told)?;
    let to: SocketAddr = told["to"].as_str().ok_or("no address")?.parse()?;
    let stream = TcpStream::connect(to).await?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sent = Vec::new();
    let mut replies = Vec::new();
    for request in told["requests"].as_array().ok_or("no requests")? {
        client = client.ready().await?;
        let response = send(&mut client, request)?;
        match told["at_once"] == true {
            true => sent.push(response),
            false => replies.push(receive(response).await),
        }
    }
    for response in sent {
        replies.push(receive(response).await);
    }
    println!("{}", Value::from(replies));
    Ok(())
}

fn send(client: &mut SendRequest<Bytes>, told: &Value) -> Result<ResponseFuture, Failure> {
    let text = |field: &str| told[field].as_str().ok_or("a field is missing");
    let uri = format!("http://{}{}", text("authority")?, text("path")?);
    let mut request = Request::builder().method(text("method")?).uri(uri);
    for pair in told["headers"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
            request = request.header(name, value);
        }
    }
    let body = Bytes::from(text("body")?.to_owned());
    let (response, mut stream) = client.send_request(request.body(())?, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    Ok(response)
}

/// The answer, or why there is none.
async fn receive(response: ResponseFuture) -> Value {
    match timeout(PATIENCE, whole(response)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => json!({"failure": error.to_string()}),
        Err(_) => json!({"failure": "no answer came"}),
    }
}

async fn whole(response: ResponseFuture) -> Result<Value, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(json!({
        "status": head.status.as_u16(),
        "headers": texts(&head.headers),
        "body": String::from_utf8_lossy(&body),
        "trailers": texts(&trailers),
    }))
}

fn texts(headers: &HeaderMap) -> Value {
    let pairs = headers.iter();
    let pairs = pairs.map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), Value::from(value))
    });
    Value::Object(pairs.collect())
}
