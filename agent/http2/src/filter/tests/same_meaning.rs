//! Random connections: what is in order arrives as it was sent, what is malformed ends its own stream, and the two
//! are told apart as the `http` crate does it.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tokio::io::AsyncReadExt;

use super::*;
use crate::frame::{PADDED, PRIORITY};
use crate::hpack::TABLE_SIZE;

/// How a field is written.
#[derive(Clone, Debug)]
enum Form {
    Literal(Field),
    Entered(Field),
    /// An entry of the table, if it has any.
    Again(Index),
    /// The name of an entry of the table, with this value.
    NameAgain(Index, Vec<u8>),
}

/// How a block is cut into frames.
#[derive(Clone, Debug)]
enum Cut {
    Whole,
    Padded(u8),
    Priority(u32),
    Continued(Vec<Index>),
}

#[derive(Clone, Debug)]
struct Head {
    resize: Option<usize>,
    fields: Vec<Form>,
    cut: Cut,
}

/// What the client has in its table, the newest first.
struct Model {
    entries: Vec<Field>,
    most: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            most: TABLE_SIZE,
        }
    }

    fn enter(&mut self, field: Field) {
        self.entries.insert(0, field);
        self.evict();
    }

    fn evict(&mut self) {
        let size = |(name, value): &Field| name.len() + value.len() + 32;
        while self.entries.iter().map(size).sum::<usize>() > self.most {
            self.entries.pop();
        }
    }

    /// Writes a head, and returns it with its fields.
    fn write(&mut self, head: &Head) -> (BytesMut, Vec<Field>) {
        let mut block = BytesMut::new();
        let mut fields = Vec::new();
        if let Some(size) = head.resize {
            number(&mut block, 0x20, 5, size);
            self.most = size;
            self.evict();
        }
        for form in &head.fields {
            let (field, is_entered) = match form {
                Form::Literal(field) => (field.clone(), false),
                Form::Entered(field) => (field.clone(), true),
                Form::Again(_) | Form::NameAgain(..) if self.entries.is_empty() => continue,
                Form::Again(index) => {
                    let place = index.index(self.entries.len());
                    number(&mut block, 0x80, 7, 62 + place);
                    fields.push(self.entries[place].clone());
                    continue;
                }
                Form::NameAgain(index, value) => {
                    let place = index.index(self.entries.len());
                    number(&mut block, 0x40, 6, 62 + place);
                    crate::hpack::write_string(&mut block, value);
                    let field = (self.entries[place].0.clone(), value.clone());
                    self.enter(field.clone());
                    fields.push(field);
                    continue;
                }
            };
            let one = std::slice::from_ref(&field);
            block.unsplit(if is_entered {
                entered(one)
            } else {
                literals(one)
            });
            if is_entered {
                self.enter(field.clone());
            }
            fields.push(field);
        }
        (block, fields)
    }
}

fn number(block: &mut BytesMut, form: u8, prefix: u32, mut number: usize) {
    let most = (1 << prefix) - 1;
    if number < most {
        return block.extend_from_slice(&[form | number as u8]);
    }
    block.extend_from_slice(&[form | most as u8]);
    number -= most;
    while number >= 0x80 {
        block.extend_from_slice(&[0x80 | (number & 0x7f) as u8]);
        number >>= 7;
    }
    block.extend_from_slice(&[number as u8]);
}

fn cut(stream: u32, block: &[u8], cut: &Cut) -> BytesMut {
    let whole = END_STREAM | END_HEADERS;
    match cut {
        Cut::Whole => frame(FrameKind::Headers, whole, stream, block),
        Cut::Padded(padding) => {
            let padding = vec![0; usize::from(*padding)];
            let payload = [&[padding.len() as u8][..], block, &padding].concat();
            frame(FrameKind::Headers, whole | PADDED, stream, &payload)
        }
        Cut::Priority(on) => {
            let payload = [&on.to_be_bytes()[..], &[3], block].concat();
            frame(FrameKind::Headers, whole | PRIORITY, stream, &payload)
        }
        Cut::Continued(places) => {
            let place = |index: &Index| index.index(block.len() + 1);
            let mut places: Vec<usize> = places.iter().map(place).collect();
            places.extend([0, block.len()]);
            places.sort_unstable();
            let mut frames = BytesMut::new();
            for (number, ends) in places.windows(2).enumerate() {
                let is_last = number + 2 == places.len();
                let (kind, begun) = match number {
                    0 => (FrameKind::Headers, END_STREAM),
                    _ => (FrameKind::Continuation, 0),
                };
                let flags = if is_last { begun | END_HEADERS } else { begun };
                frames.unsplit(frame(kind, flags, stream, &block[ends[0]..ends[1]]));
            }
            frames
        }
    }
}

/// Whether h2 and HTTP take a head.
fn is_in_order(fields: &[Field], stream: u32, cut: &Cut) -> bool {
    let mut pseudos = Vec::new();
    let mut has_regular = false;
    for (name, value) in fields {
        let text = std::str::from_utf8(value);
        let takes = if name.starts_with(b":") {
            let is_first = !has_regular && !pseudos.contains(&name);
            pseudos.push(name);
            is_first
                && match &name[..] {
                    b":authority" | b":scheme" | b":path" => text.is_ok(),
                    b":method" => Method::from_bytes(value).is_ok(),
                    b":status" => StatusCode::from_bytes(value).is_ok(),
                    _ => false,
                }
        } else {
            has_regular = true;
            HeaderName::from_lowercase(name).is_ok()
                && HeaderValue::from_bytes(value).is_ok()
                && name != b"connection"
                && (name != b"te" || value == b"trailers")
        };
        if !takes {
            return false;
        }
    }
    let needed = [&b":method"[..], b":scheme", b":authority", b":path"];
    let has = |name: &&[u8]| pseudos.iter().any(|pseudo| pseudo == name);
    needed.iter().all(has)
        && pseudos.len() == needed.len()
        && !matches!(cut, Cut::Priority(on) if *on == stream)
}

fn pseudo(name: &'static str, values: &'static [&'static str]) -> BoxedStrategy<Form> {
    let one = select(values).prop_map(move |value| field(name, value));
    prop_oneof![
        one.clone().prop_map(Form::Literal),
        one.prop_map(Form::Entered)
    ]
    .boxed()
}

fn any_field() -> impl Strategy<Value = Field> {
    let large = vec(b'a'..=b'z', 0..2000);
    let good =
        (select(&["a", "bc", "te", "x-long-name"][..]), large).prop_map(
            |(name, value)| match name {
                "te" => field("te", "trailers"),
                name => field(name, value),
            },
        );
    let bad: [(&str, &[u8]); 11] = [
        ("", b""),
        ("", b"a"),
        ("Upper", b"a"),
        ("a", b"\n"),
        ("te", b"gzip"),
        ("connection", b""),
        (":path", b"/\xff"),
        (":path", b"/again"),
        (":method", b""),
        (":status", b"2"),
        (":unknown", b"a"),
    ];
    let bad = select(bad.map(|(name, value)| field(name, value)).to_vec());
    prop_oneof![12 => good, 1 => bad]
}

fn head() -> impl Strategy<Value = Head> {
    let form = prop_oneof![
        2 => any_field().prop_map(Form::Literal),
        4 => any_field().prop_map(Form::Entered),
        1 => any::<Index>().prop_map(Form::Again),
        1 => (any::<Index>(), vec(b'a'..=b'z', 0..9)).prop_map(|(i, v)| Form::NameAgain(i, v)),
    ];
    let cut = prop_oneof![
        4 => Just(Cut::Whole),
        1 => any::<u8>().prop_map(Cut::Padded),
        1 => (0_u32..20).prop_map(Cut::Priority),
        2 => vec(any::<Index>(), 0..5).prop_map(Cut::Continued),
    ];
    let pseudos = (
        pseudo(":method", &["GET", "POST", "ODD"]),
        pseudo(":scheme", &["http", "https"]),
        pseudo(":authority", &["a.com", "b.com:80"]),
        pseudo(":path", &["/", "/x?y", "/\u{e9}"]),
    );
    let resize = proptest::option::weighted(0.2, 0..=TABLE_SIZE);
    (resize, pseudos, vec(form, 0..5), cut).prop_map(|(resize, (m, s, a, p), rest, cut)| Head {
        resize,
        fields: [vec![m, s, a, p], rest].concat(),
        cut,
    })
}

proptest! {
    #[test]
    fn every_head_arrives_as_it_was_sent_or_ends_its_own_stream(
        heads in vec(head(), 1..12),
        piece in select(&[1, 9, 100, 1 << 20][..]),
    ) {
        let mut model = Model::new();
        let mut sent = begun();
        let (mut expected, mut refused) = (BTreeMap::new(), Vec::new());
        let mut has_refused = false;
        for (stream, head) in (1..).step_by(2).zip(&heads) {
            let (block, mut fields) = model.write(head);
            sent.unsplit(cut(stream, &block, &head.cut));
            let length = |(name, value): &Field| name.len() + value.len() + 32;
            let length: usize = fields.iter().map(length).sum();
            let in_order = is_in_order(&fields, stream, &head.cut);
            // h2 answers 431 to a head that is too long, and the filter resets its stream.
            if in_order && length >= LIMITS.list {
                if has_refused && length > LIMITS.list {
                    refused.push(stream);
                }
                continue;
            }
            fields.sort();
            if in_order {
                expected.insert(stream, fields);
            } else {
                has_refused = true;
                refused.push(stream);
            }
        }
        let served = serve(&sent, piece);
        prop_assert_eq!(served.ended.unwrap_or(0), 0);
        prop_assert_eq!(served.refused(), refused);
        prop_assert_eq!(served.requests, expected);
    }

    #[test]
    fn whatever_comes_passes_to_its_end(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..2000),
            vec((0_u8..11, any::<u8>(), 0_u8..4, vec(any::<u8>(), 0..60)), 0..40).prop_map(|frames| {
                let frame = |(kind, flags, stream, payload): (u8, u8, u8, Vec<u8>)| {
                    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
                    [&head[..], &payload].concat()
                };
                frames.into_iter().flat_map(frame).collect()
            }),
        ],
        piece in 1_usize..100,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (passed, held) = runtime.block_on(async {
            let (mut client, stream) = duplex(1 << 20);
            client.write_all(&bytes).await.unwrap();
            drop(client);
            let stream = Pieces { stream, most: piece };
            let mut filtered = HeadFilter::of_server(stream, LIMITS);
            let mut passed = Vec::new();
            filtered.read_to_end(&mut passed).await.unwrap();
            (passed, filtered.held.len() + filtered.passed.len())
        });
        prop_assert_eq!(held, 0);
        // Only a whole malformed block makes a difference.
        if passed != bytes {
            prop_assert!(frames(&passed).iter().any(|(head, _)| head.kind == FrameKind::Headers));
        }
    }
}
