//! The record of a commit, as the log keeps it: its operations, one after another.
//!
//! An operation is a kind (one byte: 0 delete, 1 put), the directory's number (varint), the key (varint length,
//! bytes), and for a put the value (varint length, bytes). Directories that a commit makes, renames or drops
//! are puts and deletes in the catalog, so replaying needs no knowledge of paths.

use crate::codec::{Reader, put_prefixed, put_varint};
use crate::entry::DirectoryId;
use crate::limits::KEY_BYTES_MAX;

const DELETE: u8 = 0;
const PUT: u8 = 1;

/// Appends an operation.
#[inline]
pub(crate) fn put_op(record: &mut Vec<u8>, directory: DirectoryId, key: &[u8], value: Option<&[u8]>) {
    record.push(if value.is_some() { PUT } else { DELETE });
    put_varint(record, directory.0);
    put_prefixed(record, key);
    if let Some(value) = value {
        put_prefixed(record, value);
    }
}

/// Calls `each` with every operation, in order. `None` where the bytes are no record.
#[inline]
pub(crate) fn each_op(record: &[u8], mut each: impl FnMut(DirectoryId, &[u8], Option<&[u8]>)) -> Option<()> {
    let mut reader = Reader::new(record);
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let directory = DirectoryId(reader.varint()?);
        let key = reader.prefixed().filter(|key| key.len() <= KEY_BYTES_MAX)?;
        let value = match kind {
            PUT => Some(reader.prefixed()?),
            DELETE => None,
            _ => return None,
        };
        each(directory, key, value);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_garbage_does_not() {
        let mut record = Vec::new();
        put_op(&mut record, DirectoryId(7), b"key", Some(b"value"));
        put_op(&mut record, DirectoryId(1 << 40), b"other", None);
        let mut seen = Vec::new();
        let read =
            each_op(&record, |id, key, value| seen.push((id.0, key.to_vec(), value.map(<[u8]>::to_vec))));
        assert_eq!(read, Some(()));
        assert_eq!(seen, [(7, b"key".to_vec(), Some(b"value".to_vec())), (1 << 40, b"other".to_vec(), None)]);
        assert_eq!(each_op(&record[..record.len() - 1], |_, _, _| {}), None);
        assert_eq!(each_op(&[9, 9, 9], |_, _, _| {}), None);
        let mut long = Vec::new();
        put_op(&mut long, DirectoryId(7), &[1; KEY_BYTES_MAX + 1], None);
        assert_eq!(each_op(&long, |_, _, _| {}), None);
    }
}
