//! `lab-authorizer ADDRESS`: an external authorizer by gRPC (`envoy.service.auth.v3.Authorization`)
//! that denies with 401 requests that contain `/deny` and allows the rest. It prints each check to the
//! standard output, as JSON.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// A `CheckResponse` with status 0, in gRPC's frame.
const ALLOW: &[u8] = b"\0\0\0\0\x02\x0a\0";

/// One with status 7 (PERMISSION_DENIED) and a denied response: 401 and a body.
const DENY: &[u8] = b"\0\0\0\0\x16\x0a\x02\x08\x07\x12\x10\x0a\x03\x08\x91\x03\x1a\x09not today";

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let address = std::env::args().nth(1);
    let address = address.ok_or("usage: lab-authorizer ADDRESS")?;
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, response) = accepted?;
        tokio::spawn(async move {
            if let Err(error) = check(request, response).await {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

async fn check(
    request: Request<h2::RecvStream>,
    mut response: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let text = String::from_utf8_lossy(&message);
    println!("{}", json!({"method": head.uri.path(), "check": text}));
    let answer = match text.contains("/deny") {
        true => DENY,
        false => ALLOW,
    };
    let mut head = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert("content-type", kind);
    let mut stream = response.send_response(head, false)?;
    stream.send_data(Bytes::from_static(answer), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
