//! HPACK's tables of fields (RFC 7541, section 2.3).

use std::collections::VecDeque;

use super::{HpackError, TABLE_SIZE};

/// What an entry counts besides its text (RFC 7541, section 4.1).
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// RFC 7541, appendix A. Indices begin at 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""),
    ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// The fields that a peer has entered, the newest first. It takes no memory until the peer uses it.
#[derive(Debug)]
pub(super) struct DynamicTable<N> {
    entries: VecDeque<Entry<N>>,
    size: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry<N> {
    name: Box<[u8]>,
    value: Box<[u8]>,
    note: N,
}

/// A field of either table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found<'a, N> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// What was noted when it was entered. `None` in the static table.
    pub(super) note: Option<N>,
}

impl<N> Default for DynamicTable<N> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            most: TABLE_SIZE,
        }
    }
}

impl<N> Entry<N> {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

impl<N: Copy> DynamicTable<N> {
    /// Returns a field of either table.
    pub(super) fn get(&self, index: usize) -> Result<Found<'_, N>, HpackError> {
        let unknown = HpackError::Index(index);
        let place = index.checked_sub(1).ok_or(unknown)?;
        if let Some((name, value)) = STATIC.get(place) {
            return Ok(Found {
                name: name.as_bytes(),
                value: value.as_bytes(),
                note: None,
            });
        }
        let entry = self.entries.get(place - STATIC.len()).ok_or(unknown)?;
        Ok(Found {
            name: &entry.name,
            value: &entry.value,
            note: Some(entry.note),
        })
    }

    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], note: N) {
        let entry = Entry {
            name: name.into(),
            value: value.into(),
            note,
        };
        self.evict(self.most.saturating_sub(entry.size()));
        // An entry that is larger than the table empties it (RFC 7541, section 4.4).
        if entry.size() <= self.most {
            self.size += entry.size();
            self.entries.push_front(entry);
        }
    }

    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(most);
    }

    fn evict(&mut self, most: usize) {
        while self.size > most
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let mut table = DynamicTable::default();
        for number in 0..1000_u32 {
            table.insert(&number.to_be_bytes(), &[0; 28], number);
            assert!(table.size <= TABLE_SIZE && table.entries.len() <= TABLE_SIZE / 64);
        }
        let newest = table.get(62).unwrap();
        assert_eq!(newest.name, 999_u32.to_be_bytes());
        assert_eq!(newest.note, Some(999));
        assert_eq!(table.entries.len(), TABLE_SIZE / 64);
        table.insert(&[0; TABLE_SIZE], &[], 0);
        assert_eq!((table.size, table.entries.len()), (0, 0));
        table.insert(b"a", b"b", 0);
        table.resize(0);
        assert_eq!(table.get(62), Err(HpackError::Index(62)));
        table.insert(b"a", b"b", 0);
        assert_eq!(table.size, 0);
    }
}
