//! Malformed answers of a server, beside others.

use http::Request;

use super::*;

/// Asks a server for four answers, and returns what h2 makes of each: the status, or the error.
async fn ask(answers: &[u8]) -> Vec<Result<u16, h2::Error>> {
    let (mut server, stream) = duplex(1 << 20);
    let filtered = HeadFilter::of_server(stream, LIMITS);
    let (mut send, connection) = h2::client::Builder::new()
        .max_header_list_size(LIMITS.list as u32)
        .enable_push(false)
        .handshake::<_, bytes::Bytes>(filtered)
        .await
        .unwrap();
    let driven = tokio::spawn(connection);
    let mut responses = Vec::new();
    for _ in 0..4 {
        send = send.ready().await.unwrap();
        let request = Request::get("http://a.com/").body(()).unwrap();
        responses.push(send.send_request(request, true).unwrap().0);
    }
    let mut settings = BytesMut::new();
    put_settings(&mut settings, &[]);
    server.write_all(&settings).await.unwrap();
    // The requests have been sent when the last one's head has come.
    let mut received = Vec::new();
    while !is_asked(&received) {
        server.read_buf(&mut received).await.unwrap();
    }
    server.write_all(answers).await.unwrap();
    let mut read = Vec::new();
    for response in responses {
        read.push(response.await.map(|response| response.status().as_u16()));
    }
    drop((send, server));
    let _ = driven.await;
    read
}

/// Whether the last request is among what the server has received.
fn is_asked(received: &[u8]) -> bool {
    let received = received.get(PREFACE.len()..).unwrap_or_default();
    let frames = frames(received).into_iter();
    frames
        .map(|(head, _)| head.stream)
        .any(|stream| stream.0 == 7)
}

#[tokio::test]
async fn a_malformed_answer_ends_only_its_own_stream() {
    let status = |value: &str| field(":status", value);
    let mut sent = BytesMut::new();
    sent.unsplit(whole(1, &entered(&[status("20"), field("kept", "yes")])));
    sent.unsplit(whole(3, &entered(&[status("200"), field("Upper", "a")])));
    // The first status' name with another value, and the second field.
    sent.unsplit(whole(5, &[0x0f, 65 - 15, 3, b'2', b'0', b'4', 0x80 | 64]));
    sent.unsplit(whole(7, &[0x80 | 63]));
    let read = ask(&sent).await;
    for malformed in &read[..2] {
        let error = malformed.as_ref().unwrap_err();
        assert!(error.is_reset(), "{error}");
        assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR));
    }
    assert_eq!(*read[2].as_ref().unwrap(), 204);
    assert_eq!(*read[3].as_ref().unwrap(), 200);
}

/// A server that pushes although it was told not to breaks the protocol.
#[tokio::test]
async fn a_push_ends_the_connection() {
    let mut payload = BytesMut::from(&[0, 0, 0, 2][..]);
    payload.unsplit(literals(&get("/")));
    let sent = frame(FrameKind::PushPromise, END_HEADERS, 1, &payload);
    for read in ask(&sent).await {
        assert!(read.unwrap_err().is_go_away());
    }
}
