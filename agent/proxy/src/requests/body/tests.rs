use std::collections::VecDeque;

use http::{HeaderMap, Method, Version};

use super::*;
use ambit_account::NodeAccount;
use ambit_model::BodyEncoding;

const TIME: Duration = Duration::from_secs(60);

/// A body that comes in these pieces, and then ends or not.
struct Pieces {
    pieces: VecDeque<&'static str>,
    then: Then,
    length: Option<u64>,
    put_back: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Ends,
    Stalls,
}

impl Pieces {
    fn new(pieces: &[&'static str], then: Then) -> Self {
        Self {
            pieces: pieces.iter().copied().collect(),
            then,
            length: None,
            put_back: Bytes::new(),
        }
    }
}

impl JudgedBody for Pieces {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn next(&mut self, _: &mut RequestHead) -> Result<Option<Bytes>, BodyError> {
        match (self.pieces.pop_front(), self.then) {
            (Some(piece), _) => Ok(Some(Bytes::from_static(piece.as_bytes()))),
            (None, Then::Ends) => Ok(None),
            (None, Then::Stalls) => std::future::pending().await,
        }
    }

    fn put_back(&mut self, read: Bytes) {
        self.put_back = read;
    }
}

fn head() -> RequestHead {
    RequestHead {
        method: Method::POST,
        scheme: None,
        authority: "a".to_owned(),
        target: "/".to_owned(),
        headers: HeaderMap::new(),
        version: Version::HTTP_11,
    }
}

fn provider(max_bytes: u32, excess: BodyExcess) -> BodyInCheck {
    BodyInCheck {
        max_bytes,
        excess,
        encoding: BodyEncoding::Bytes,
    }
}

fn wanted(most: usize, refused_beyond: Option<usize>) -> BodyDemand {
    BodyDemand {
        most,
        refused_beyond,
    }
}

fn memory() -> PodAccount {
    NodeAccount::new(1 << 20).pod()
}

async fn show(body: &mut Pieces, wanted: BodyDemand) -> Result<BodyPrefix, BodyUnavailable> {
    let memory = memory();
    let mut ahead = BodyReader::new(&memory, TIME);
    ahead.read(wanted, &mut head(), body).await?;
    Ok(ahead.finish(body))
}

/// What a provider sees, and whether that is all.
fn part(shown: &BodyPrefix, max_bytes: u32) -> (String, BodyExtent) {
    let part = shown.part(&provider(max_bytes, BodyExcess::Cut)).unwrap();
    (String::from_utf8(part.bytes.to_vec()).unwrap(), part.extent)
}

#[tokio::test(start_paused = true)]
async fn each_provider_sees_its_part_and_the_application_gets_all() {
    let mut body = Pieces::new(&["abc", "def", "ghi"], Then::Ends);
    let shown = show(&mut body, wanted(5, None)).await.unwrap();
    for (most, seen) in [(1, "a"), (5, "abcde")] {
        assert_eq!(part(&shown, most), (seen.to_owned(), BodyExtent::Beginning));
    }
    assert!(body.put_back.starts_with(b"abcdef"));
    let mut body = Pieces::new(&["abc", "d"], Then::Ends);
    let shown = show(&mut body, wanted(5, None)).await.unwrap();
    assert_eq!(part(&shown, 3), ("abc".to_owned(), BodyExtent::Beginning));
    assert_eq!(part(&shown, 4), ("abcd".to_owned(), BodyExtent::Whole));
    assert_eq!(part(&shown, 5), ("abcd".to_owned(), BodyExtent::Whole));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_may_be_all_is_said_to_be_the_beginning() {
    let ends = show(&mut Pieces::new(&["abcde"], Then::Ends), wanted(5, None)).await;
    assert_eq!(part(&ends.unwrap(), 5).1, BodyExtent::Whole);
    let stalls = show(&mut Pieces::new(&["abcde"], Then::Stalls), wanted(5, None)).await;
    assert_eq!(part(&stalls.unwrap(), 5).1, BodyExtent::Beginning);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_for_one_of_them_is_refused() {
    for (pieces, length) in [(&["abc", "d"][..], None), (&[][..], Some(4))] {
        let mut body = Pieces::new(pieces, Then::Stalls);
        body.length = length;
        let refused = show(&mut body, wanted(9, Some(3))).await.unwrap_err();
        assert_eq!(refused, BodyUnavailable::TooLong(3));
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut body = Pieces::new(&["abc"], Then::Ends);
    let shown = show(&mut body, wanted(3, Some(3))).await.unwrap();
    assert_eq!(part(&shown, 3), ("abc".to_owned(), BodyExtent::Whole));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_without_an_end() {
    let mut body = Pieces::new(&["abc"], Then::Stalls);
    let refused = show(&mut body, wanted(4, None)).await.unwrap_err();
    assert_eq!(refused, BodyUnavailable::TimedOut(TIME));
    assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn bodies_draw_from_the_pods_account_until_they_are_passed_on() {
    const LENGTH: usize = 50_000;
    let node = NodeAccount::new(1 << 20);
    let memory = node.pod();
    let piece: &'static str = "x".repeat(LENGTH).leak();
    let read = async || {
        let mut body = Pieces::new(&[piece], Then::Ends);
        let mut ahead = BodyReader::new(&memory, TIME);
        let all = wanted(2 * LENGTH, None);
        ahead.read(all, &mut head(), &mut body).await?;
        drop(ahead.finish(&mut body));
        Ok::<Bytes, BodyUnavailable>(body.put_back)
    };
    let mut held = Vec::new();
    let refused = loop {
        match read().await {
            Ok(body) => held.push(body),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, BodyUnavailable::NoMemory(_)), "{refused}");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.to_string().contains("--memory"), "{refused}");
    assert!(held.len() * LENGTH <= node.usage().in_use, "{held:?}");
    drop(memory.take(LENGTH).expect("bodies leave room to others"));
    held.pop();
    held.push(read().await.unwrap());
    held.clear();
    assert_eq!(node.usage().in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn policies_that_change_meanwhile_want_more_or_less() {
    let memory = memory();
    let mut body = Pieces::new(&["abc", "def"], Then::Ends);
    let mut ahead = BodyReader::new(&memory, TIME);
    ahead
        .read(wanted(1, None), &mut head(), &mut body)
        .await
        .unwrap();
    assert!(ahead.has(wanted(2, None)) && !ahead.has(wanted(99, None)));
    assert!(!ahead.has(wanted(1, Some(2))), "it is too long already");
    ahead
        .read(wanted(99, None), &mut head(), &mut body)
        .await
        .unwrap();
    assert!(ahead.has(wanted(99, Some(99))));
    assert_eq!(part(&ahead.finish(&mut body), 99).0, "abcdef");
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_body_none_is_shown() {
    let shown = show(&mut Pieces::new(&[], Then::Ends), wanted(5, Some(5))).await;
    assert_eq!(shown.unwrap().part(&provider(5, BodyExcess::Refuse)), None);
}
