//! Heads that h2 refuses, as frames that no library writes.

use h2::Reason;
use http::Response;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 0x5;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// Each field as a literal that is not indexed (RFC 7541, section 6.2.2).
fn literals(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for part in [name.as_bytes(), value] {
            block.push(u8::try_from(part.len()).unwrap());
            block.extend_from_slice(part);
        }
    }
    block
}

fn request(method: &str, path: &[u8], field: (&str, &[u8])) -> Vec<u8> {
    literals(&[
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"a.com"),
        (":path", path),
        field,
    ])
}

fn get(stream: u8, path: &[u8]) -> Vec<u8> {
    let block = request("GET", path, ("a", b"b"));
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
        let refused: [&[u8]; 8] = [
            b"/a<b", b"/a>b", b"/a`b", b"/a b", b"a", b"/\xff", b"/\xc3(", b"/\n",
        ];
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

#[test]
fn a_malformed_head_ends_neither_streams_that_are_open_nor_those_that_follow() {
    run(async {
        let mut scene = Scene::new().await;
        let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let open = request("POST", b"/open", ("a", b"b"));
        sent.extend(frame(HEADERS, END_HEADERS, 1, &open));
        scene.client.write_all(&sent).await.unwrap();
        let mut connection = h2::server::handshake(scene.application).await.unwrap();
        let (opened, mut respond) = connection.accept().await.unwrap().unwrap();
        spawn_local(async move { while connection.accept().await.is_some() {} });
        let fields: [(&str, &[u8]); 6] = [
            ("Upper", b"a"),
            ("a", b"\0"),
            ("", b"a"),
            (":unknown", b"a"),
            ("a b", b"a"),
            ("upgrade", b"h2c"),
        ];
        let mut sent = Vec::new();
        for (stream, field) in (3..).step_by(2).zip(fields) {
            sent.extend(frame(HEADERS, WHOLE, stream, &request("GET", b"/", field)));
        }
        let trailers = literals(&[("Upper", b"a")]);
        let last = request("POST", b"/trailers", ("a", b"b"));
        sent.extend(frame(HEADERS, END_HEADERS, 15, &last));
        sent.extend(frame(HEADERS, WHOLE, 15, &trailers));
        scene.client.write_all(&sent).await.unwrap();
        let frames = read_until(&mut scene.client, 15).await;
        let reset = |(kind, of, _): &(u8, u8, Vec<u8>)| (*kind == RST_STREAM).then_some(*of);
        let resets: Vec<u8> = frames.iter().filter_map(reset).collect();
        assert_eq!(resets, [3, 5, 7, 9, 11, 13, 15], "{frames:?}");
        let ended = frame(DATA, END_STREAM, 1, b"body");
        scene.client.write_all(&ended).await.unwrap();
        let mut body = opened.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "body");
        respond.send_response(Response::new(()), true).unwrap();
        let frames = read_until(&mut scene.client, 1).await;
        assert!(matches!(frames.last(), Some((HEADERS, 1, _))), "{frames:?}");
    });
}

/// The fields of a malformed head stay in the client's table. None of them may be taken for another.
#[test]
fn what_is_judged_is_what_the_application_gets_after_a_malformed_head() {
    run(async {
        let mut scene = Scene::new().await;
        let (arrives, mut arrived) = mpsc::unbounded_channel();
        spawn_local(async move {
            let mut connection = h2::server::handshake(scene.application).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let who = request.headers()["who"].to_str().unwrap().to_owned();
                arrives
                    .send((request.uri().path().to_owned(), who))
                    .unwrap();
                respond.send_response(Response::new(()), true).unwrap();
            }
        });
        let entered = |fields: &[(&str, &[u8])]| {
            let field = |field| [&[0x40][..], &literals(&[field])[1..]].concat();
            fields.iter().copied().flat_map(field).collect::<Vec<u8>>()
        };
        let malformed = entered(&[
            (":authority", b"a.com"),
            (":path", b"/denied"),
            ("who", b"mallory"),
            ("Who", b"trudy"),
            (":path", b"/\xff"),
            ("who", b"alice"),
            (":path", b"/fine"),
        ]);
        // The newest has index 62. The method and the scheme are in the static table.
        let get = |path: u8, who: u8| [0x82, 0x86, 0x80 | 68, 0x80 | path, 0x80 | who];
        let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        sent.extend(frame(HEADERS, WHOLE, 1, &malformed));
        for (stream, block) in [
            (3, get(62, 63)),
            (5, get(67, 63)),
            (7, get(62, 66)),
            (9, get(64, 63)),
            (11, get(62, 65)),
        ] {
            sent.extend(frame(HEADERS, WHOLE, stream, &block));
        }
        // The name of an entry, and another value.
        let renamed = [
            &get(62, 63)[..3],
            &[0x0f, 64 - 15, 2, b'/', b'a', 0x80 | 63],
        ]
        .concat();
        sent.extend(frame(HEADERS, WHOLE, 13, &renamed));
        scene.client.write_all(&sent).await.unwrap();
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(arrived.recv().await.unwrap());
        }
        let expected = [("/fine", "alice"), ("/fine", "mallory"), ("/a", "alice")];
        let expected = expected.map(|(path, who)| (path.to_owned(), who.to_owned()));
        assert_eq!(requests, expected);
        assert_eq!(scene.gate.targets(), ["/fine", "/denied", "/fine", "/a"]);
        let frames = read_until(&mut scene.client, 13).await;
        let reset = |(kind, of, _): &(u8, u8, Vec<u8>)| (*kind == RST_STREAM).then_some(*of);
        let resets: Vec<u8> = frames.iter().filter_map(reset).collect();
        assert_eq!(resets, [1, 9, 11], "{frames:?}");
    });
}

#[test]
fn a_client_that_sends_too_many_malformed_heads_is_sent_goaway() {
    run(async {
        let mut scene = Scene::new().await;
        let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for number in 0..300_u16 {
            let mut malformed = get(0, b"/\xff");
            malformed[7..9].copy_from_slice(&(2 * number + 1).to_be_bytes());
            sent.extend(malformed);
        }
        scene.client.write_all(&sent).await.unwrap();
        let mut answered = Vec::new();
        scene.client.read_to_end(&mut answered).await.unwrap();
        let last = &answered[answered.len() - 9 - 8 - "too_many_internal_resets".len()..];
        assert_eq!(last[3], GOAWAY);
        let calm = u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes();
        assert_eq!(last[9 + 4..9 + 8], calm);
        assert!(scene.gate.targets().is_empty());
    });
}

#[test]
fn a_malformed_answer_ends_only_its_own_request() {
    run(async {
        let scene = Scene::new().await;
        let (mut client, connection) = h2::client::handshake(scene.client).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let mut application = scene.application;
        let mut responses = Vec::new();
        for _ in 0..5 {
            client = client.ready().await.unwrap();
            let request = http::Request::get("http://a.com/").body(()).unwrap();
            responses.push(client.send_request(request, true).unwrap().0);
        }
        let mut preface = [0; PREFACE.len()];
        application.read_exact(&mut preface).await.unwrap();
        read_until(&mut application, 9).await;
        let status = |status: &'static [u8], field: (&'static str, &'static [u8])| {
            literals(&[(":status", status), field])
        };
        let mut sent = frame(SETTINGS, 0, 0, &[]);
        for (stream, block) in [
            (1, status(b"200", ("Upper", b"a"))),
            (3, status(b"200", ("fine", b"a"))),
            (5, status(b"2x0", ("fine", b"a"))),
            (7, status(b"200", ("a", b"\r\n"))),
            (9, status(b"200", ("fine", b"a"))),
        ] {
            sent.extend(frame(HEADERS, WHOLE, stream, &block));
        }
        application.write_all(&sent).await.unwrap();
        let mut statuses = Vec::new();
        for response in responses {
            statuses.push(response.await.unwrap().status().as_u16());
        }
        assert_eq!(statuses, [502, 200, 502, 502, 200]);
    });
}
