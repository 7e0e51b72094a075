//! UID sets: `1:3,7`, read and written.

use super::token::number;

/// Longest set written into one command. Servers have refused lines from 8 KiB on.
pub(crate) const MAX_SET: usize = 7_000;

/// The UIDs of a set in the order written, or `None` where it is no set or longer than `max`.
pub(crate) fn expand(set: &[u8], max: usize) -> Option<Vec<u64>> {
    let mut uids = Vec::new();
    for part in set.split(|b| *b == b',') {
        let (first, last) = match part.iter().position(|b| *b == b':') {
            Some(colon) => (number(&part[..colon])?, number(&part[colon + 1..])?),
            None => {
                let uid = number(part)?;
                (uid, uid)
            }
        };
        // `7:5` means the same as `5:7`, and both count up.
        let (first, last) = (first.min(last), first.max(last));
        if last - first >= (max.saturating_sub(uids.len())) as u64 {
            return None;
        }
        uids.extend(first..=last);
    }
    Some(uids)
}

/// Ascending UIDs as the shortest set that names exactly them.
pub(crate) fn format(uids: &[u64]) -> String {
    let mut set = String::new();
    for (first, last) in ranges(uids) {
        push(&mut set, first, last);
    }
    set
}

fn push(set: &mut String, first: u64, last: u64) {
    if !set.is_empty() {
        set.push(',');
    }
    set.push_str(&first.to_string());
    if last > first {
        set.push(':');
        set.push_str(&last.to_string());
    }
}

fn ranges(uids: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == uid => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    ranges
}

/// How much one command may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    /// Length of the written set.
    pub(crate) line: usize,
}

/// How many of `messages` (UID, size), from the front, make one command. At least one, if there is one.
pub(crate) fn cut(messages: &[(u64, u64)], cut: Cut) -> usize {
    let mut bytes = 0u64;
    let mut line = 0usize;
    let mut last: Option<u64> = None;
    for (taken, &(uid, size)) in messages.iter().enumerate() {
        bytes = bytes.saturating_add(size);
        // An upper bound: each UID as its own range, unless it continues the one before.
        if last.is_none_or(|last| last + 1 != uid) {
            line += 2 * (digits(uid) + 1);
        }
        last = Some(uid);
        let full = taken >= cut.count || bytes > cut.bytes || line > cut.line;
        if full && taken > 0 {
            return taken;
        }
    }
    messages.len()
}

fn digits(uid: u64) -> usize {
    uid.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_round_trip() {
        let uids = [1, 2, 3, 7, 9, 10, u64::MAX];
        let set = format(&uids);
        assert_eq!(set, format!("1:3,7,9:10,{}", u64::MAX));
        assert_eq!(expand(set.as_bytes(), 100).unwrap(), uids);
        assert_eq!(format(&[]), "");
    }

    #[test]
    fn odd_sets() {
        assert_eq!(expand(b"7:5", 10), Some(vec![5, 6, 7]));
        for odd in ["*", "1:*", "", "1,,2", "a", "1:1000000000000", "0:18446744073709551615"] {
            assert_eq!(expand(odd.as_bytes(), 1000), None, "{odd}");
        }
    }

    #[test]
    fn cuts_by_count_bytes_and_line() {
        let roomy = Cut { count: 1000, bytes: u64::MAX, line: 7000 };
        let many: Vec<_> = (1..=5000u64).map(|uid| (uid, 10)).collect();
        assert_eq!(cut(&many, roomy), 1000);
        assert_eq!(cut(&many, Cut { bytes: 105, ..roomy }), 10);
        assert_eq!(cut(&many, Cut { bytes: 5, ..roomy }), 1);
        let sparse: Vec<_> = (1..=5000u64).map(|uid| (1_000_000 + uid * 2, 10)).collect();
        let taken = cut(&sparse, roomy);
        assert!(taken > 300);
        let uids: Vec<_> = sparse[..taken].iter().map(|m| m.0).collect();
        assert!(format(&uids).len() <= 7000);
        assert_eq!(cut(&[], roomy), 0);
    }
}
