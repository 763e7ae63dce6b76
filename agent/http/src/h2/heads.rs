//! How many bytes of heads the requests of a connection that are under way may have together. A stream
//! without them takes little memory, so that there may be many.

use std::cell::Cell;
use std::rc::Rc;

use http::{HeaderMap, Request};

/// The most bytes of the heads of a client's requests that are under way, on one connection: 256 heads of the
/// longest kind.
const MOST: usize = 15 << 20;

/// What HTTP/2 counts for a field besides its name and value (RFC 9113, section 6.5.2), which is about what
/// it takes in memory.
const FIELD: usize = 32;

/// The heads of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads(Rc<Cell<usize>>);

/// A request's share of them, given back on drop.
#[derive(Debug)]
pub(super) struct HeadShare {
    heads: Heads,
    bytes: usize,
}

/// Returns about how many bytes fields take.
pub(super) fn field_bytes(headers: &HeaderMap) -> usize {
    let fields = headers.iter();
    let bytes = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    bytes.sum()
}

impl Heads {
    /// Takes a share for a request; `None` if there is none left.
    pub(super) fn take<B>(&self, request: &Request<B>) -> Option<HeadShare> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        let bytes = field_bytes(request.headers()) + path.len() + FIELD;
        let taken = self.0.get() + bytes;
        (taken <= MOST).then(|| {
            self.0.set(taken);
            let heads = self.clone();
            HeadShare { heads, bytes }
        })
    }
}

impl Drop for HeadShare {
    fn drop(&mut self) {
        let taken = &self.heads.0;
        taken.set(taken.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_end_at_the_bound_and_are_given_back() {
        let long = "x".repeat(60 << 10);
        let request = Request::get("http://a/")
            .header("x-long", long)
            .body(())
            .unwrap();
        let heads = Heads::default();
        let shares: Vec<HeadShare> = std::iter::from_fn(|| heads.take(&request)).collect();
        assert!((250..=256).contains(&shares.len()), "{}", shares.len());
        let short = Request::get("http://a/").body(()).unwrap();
        assert!(heads.take(&short).is_some());
        drop(shares);
        assert!(heads.take(&request).is_some());
        assert_eq!(heads.0.get(), 0);
    }
}
