//! Bytes on disk: the segment header and the record. The layout is described in the crate's documentation.

/// The version this build writes.
pub(crate) const VERSION: u32 = 1;
/// Where the first record of a segment starts.
pub(crate) const HEADER_BYTES: u64 = 1024;
/// What a record takes beyond its payload.
pub(crate) const RECORD_OVERHEAD: u64 = 16;

const MAGIC: [u8; 8] = *b"MUTTWAL\n";
// The second copy lies in another sector, so that one bad sector does not cost a segment.
const COPY_AT: usize = 512;
const FIELDS: usize = 48;

pub(crate) fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:020}.wal")
}

pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub first_seq: u64,
    /// Numbers from here to `first_seq` were given to records that were refused: the segment before ends here.
    pub previous_end: u64,
    pub salt: [u8; 16],
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    UnknownVersion(u32),
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut fields = [0; FIELDS];
        fields[..8].copy_from_slice(&MAGIC);
        fields[8..12].copy_from_slice(&VERSION.to_le_bytes());
        fields[12..20].copy_from_slice(&self.first_seq.to_le_bytes());
        fields[20..28].copy_from_slice(&self.previous_end.to_le_bytes());
        fields[28..44].copy_from_slice(&self.salt);
        let crc = crc32c::crc32c(&fields[..44]);
        fields[44..].copy_from_slice(&crc.to_le_bytes());
        let mut header = [0; HEADER_BYTES as usize];
        header[..FIELDS].copy_from_slice(&fields);
        header[COPY_AT..COPY_AT + FIELDS].copy_from_slice(&fields);
        header
    }

    /// The header, and whether it had to be taken from the second copy.
    pub fn decode(bytes: &[u8]) -> Result<(Self, bool), HeaderFault> {
        match Self::decode_copy(bytes, 0) {
            Ok(header) => Ok((header, false)),
            Err(first) => match Self::decode_copy(bytes, COPY_AT) {
                Ok(header) => Ok((header, true)),
                Err(HeaderFault::Damaged) => Err(first),
                Err(second @ HeaderFault::UnknownVersion(_)) => Err(second),
            },
        }
    }

    fn decode_copy(bytes: &[u8], at: usize) -> Result<Self, HeaderFault> {
        let fields = bytes.get(at..at + FIELDS).ok_or(HeaderFault::Damaged)?;
        if fields[..8] != MAGIC || crc32c::crc32c(&fields[..44]) != u32_at(fields, 44) {
            return Err(HeaderFault::Damaged);
        }
        let version = u32_at(fields, 8);
        if version != VERSION {
            return Err(HeaderFault::UnknownVersion(version));
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&fields[28..44]);
        Ok(Self { first_seq: u64_at(fields, 12), previous_end: u64_at(fields, 20), salt })
    }
}

/// How the records of one segment are written: what its salt does to them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec {
    seed: u32,
    mask: u64,
}

impl Codec {
    pub fn new(header: &Header) -> Self {
        Self { seed: crc32c::crc32c(&header.salt[..8]), mask: u64_at(&header.salt, 8) }
    }

    pub fn encode(&self, buf: &mut Vec<u8>, seq: u64, payload: &[u8]) {
        let start = buf.len();
        buf.reserve(RECORD_OVERHEAD as usize + payload.len());
        buf.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        buf.extend_from_slice(&[0; 4]);
        buf.extend_from_slice(&(seq ^ self.mask).to_le_bytes());
        buf.extend_from_slice(payload);
        let crc = self.crc(&buf[start..]);
        buf[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The length of the whole record whose first four bytes these are.
    pub fn record_bytes(&self, head: &[u8]) -> u64 {
        RECORD_OVERHEAD + u64::from(u32_at(head, 0))
    }

    pub fn seq(&self, head: &[u8]) -> u64 {
        u64_at(head, 8) ^ self.mask
    }

    pub fn is_valid(&self, record: &[u8]) -> bool {
        u32_at(record, 4) == self.crc(record)
    }

    fn crc(&self, record: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.seed, &record[..4]), &record[8..])
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { first_seq: 7, previous_end: 5, salt: *b"0123456789abcdef" }
    }

    #[test]
    fn a_header_survives_damage_to_either_copy_but_not_to_both() {
        let good = header().encode();
        assert_eq!(Header::decode(&good), Ok((header(), false)));
        let mut bad = good;
        bad[30] ^= 1;
        assert_eq!(Header::decode(&bad), Ok((header(), true)));
        bad[COPY_AT + 3] ^= 1;
        assert_eq!(Header::decode(&bad), Err(HeaderFault::Damaged));
        assert_eq!(Header::decode(&good[..20]), Err(HeaderFault::Damaged));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut newer = header().encode();
        for at in [0, COPY_AT] {
            newer[at + 8] = 9;
            let crc = crc32c::crc32c(&newer[at..at + 44]);
            newer[at + 44..at + 48].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(Header::decode(&newer), Err(HeaderFault::UnknownVersion(9)));
    }

    #[test]
    fn segment_names_sort_as_their_numbers_and_foreign_names_are_not_ours() {
        assert_eq!(segment_name(7), "00000000000000000007.wal");
        assert_eq!(parse_segment_name(&segment_name(u64::MAX)), Some(u64::MAX));
        for name in ["7.wal", "00000000000000000007", "0000000000000000000x.wal", "99999999999999999999.wal", "é.wal"]
        {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    // The bytes of version 1, as every later build must read them.
    #[test]
    fn version_1_reads_as_it_was_written() {
        let codec = Codec::new(&header());
        let mut record = Vec::new();
        codec.encode(&mut record, 7, b"hello");
        assert_eq!(record, *b"\x05\0\0\0\x24\x9d\x04\x17\x3f9abcdefhello");
        assert!(codec.is_valid(&record));
        assert_eq!((codec.seq(&record), codec.record_bytes(&record)), (7, 21));
    }
}
