//! Paths that h2 refuses, as frames that no library writes.

use h2::Reason;
use http::Response;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 0x5;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// A GET, with each field as a literal that is not indexed (RFC 7541, section 6.2.2).
fn get(stream: u8, path: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", &b"GET"[..]),
        (":scheme", b"http"),
        (":authority", b"a.com"),
        (":path", path),
    ] {
        block.push(0);
        for part in [name.as_bytes(), value] {
            block.push(u8::try_from(part.len()).unwrap());
            block.extend_from_slice(part);
        }
    }
    frame(HEADERS, WHOLE, stream, &block)
}

/// Reads until a stream has ended or was reset, and returns the frames' kinds, streams and payloads.
async fn read_until(client: &mut TcpStream, stream: u8) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, _, .., of] = head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).await.unwrap();
        frames.push((kind, of, payload));
        if of == stream && [HEADERS, RST_STREAM].contains(&kind) {
            return frames;
        }
    }
}

#[test]
fn a_path_that_is_refused_ends_only_its_own_stream() {
    run(async {
        let mut scene = Scene::new().await;
        spawn_local(async move {
            let mut connection = h2::server::handshake(scene.application).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/fine");
                respond.send_response(Response::new(()), true).unwrap();
            }
        });
        let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let refused: [&[u8]; 5] = [b"/a<b", b"/a>b", b"/a`b", b"/a b", b"a"];
        let mut stream = 1;
        for path in refused {
            sent.extend(get(stream, path));
            stream += 2;
        }
        sent.extend(get(stream, b"/fine"));
        scene.client.write_all(&sent).await.unwrap();
        let frames = read_until(&mut scene.client, stream).await;
        assert!(matches!(frames.last(), Some((HEADERS, ..))), "{frames:?}");
        let protocol_error = u32::from(Reason::PROTOCOL_ERROR).to_be_bytes().to_vec();
        let resets = frames.iter().filter(|(kind, ..)| *kind == RST_STREAM);
        assert_eq!(resets.clone().count(), refused.len(), "{frames:?}");
        assert!(resets.clone().all(|(.., reason)| *reason == protocol_error));
        assert_eq!(scene.gate.targets(), ["/fine"]);
    });
}
