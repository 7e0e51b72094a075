//! Opens `winmail.dat` as Exchange does before Graph sees it: the files and the plain text in it.
//!
//! Layout: "[MS-OXTNEF]: Transport Neutral Encapsulation Format (TNEF) Data Algorithm".

/// What was found inside.
pub(crate) struct Opened {
    pub(crate) body: Option<String>,
    pub(crate) files: Vec<File>,
}

pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

const SIGNATURE: u32 = 0x223E_9F78;
const BODY: u16 = 0x800C;
const ATTACH_DATA: u16 = 0x800F;
const ATTACH_TITLE: u16 = 0x8010;
const ATTACH_START: u16 = 0x9002;
const ATTACH_PROPERTIES: u16 = 0x9005;
const LONG_FILENAME: u16 = 0x3707;

/// `None` if it is not TNEF or is damaged: then the file stays as it is.
pub(crate) fn open(bytes: &[u8]) -> Option<Opened> {
    let mut reader = Reader { rest: bytes };
    if reader.u32()? != SIGNATURE {
        return None;
    }
    reader.take(2)?;
    let mut opened = Opened { body: None, files: Vec::new() };
    while !reader.rest.is_empty() {
        reader.take(1)?;
        let id = reader.u16()?;
        reader.take(2)?;
        let length = reader.u32()? as usize;
        let data = reader.take(length)?;
        let checksum = reader.u16()?;
        let sum = data.iter().fold(0u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
        if sum != checksum {
            return None;
        }
        match (id, opened.files.last_mut()) {
            (BODY, _) => opened.body = Some(text(data)),
            (ATTACH_START, _) => opened.files.push(File { name: String::new(), bytes: Vec::new() }),
            (ATTACH_TITLE, Some(file)) if file.name.is_empty() => file.name = text(data),
            (ATTACH_DATA, Some(file)) => file.bytes = data.to_vec(),
            (ATTACH_PROPERTIES, Some(file)) => {
                if let Some(name) = long_filename(data) {
                    file.name = name;
                }
            }
            _ => {}
        }
    }
    Some(opened)
}

fn text(data: &[u8]) -> String {
    let end = memchr::memchr(0, data).unwrap_or(data.len());
    encoding_rs::WINDOWS_1252.decode(&data[..end]).0.into_owned()
}

/// Walks the property list as far as it is understood; the name stands early.
fn long_filename(data: &[u8]) -> Option<String> {
    let mut reader = Reader { rest: data };
    for _ in 0..reader.u32()? {
        let kind = reader.u16()?;
        let id = reader.u16()?;
        if id >= 0x8000 {
            reader.take(16)?;
            if reader.u32()? == 0 {
                reader.take(4)?;
            } else {
                let length = reader.u32()? as usize;
                reader.take(length.div_ceil(4) * 4)?;
            }
        }
        match kind & 0x0fff {
            0x0002 | 0x0003 | 0x0004 | 0x000a | 0x000b => {
                reader.take(4)?;
            }
            0x0005 | 0x0006 | 0x0007 | 0x0014 | 0x0040 => {
                reader.take(8)?;
            }
            0x0048 => {
                reader.take(16)?;
            }
            0x000d | 0x001e | 0x001f | 0x0102 => {
                for _ in 0..reader.u32()? {
                    let length = reader.u32()? as usize;
                    let value = reader.take(length)?;
                    reader.take(length.div_ceil(4) * 4 - length)?;
                    if id == LONG_FILENAME {
                        return Some(if kind & 0x0fff == 0x001f {
                            let units: Vec<u16> = value
                                .chunks_exact(2)
                                .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
                                .take_while(|unit| *unit != 0)
                                .collect();
                            String::from_utf16_lossy(&units)
                        } else {
                            text(value)
                        });
                    }
                }
            }
            _ => return None,
        }
    }
    None
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count)?;
        self.rest = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: u8, id: u16, data: &[u8]) -> Vec<u8> {
        let mut out = vec![level];
        out.extend(id.to_le_bytes());
        out.extend([0, 0]);
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        let sum = data.iter().fold(0u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
        out.extend(sum.to_le_bytes());
        out
    }

    #[test]
    fn files_come_out() {
        let mut tnef = SIGNATURE.to_le_bytes().to_vec();
        tnef.extend([1, 0]);
        tnef.extend(record(2, ATTACH_START, &[0; 14]));
        tnef.extend(record(2, ATTACH_TITLE, b"factuur.pdf\0"));
        tnef.extend(record(2, ATTACH_DATA, b"%PDF"));
        let opened = open(&tnef).unwrap();
        assert_eq!(opened.files.len(), 1);
        assert_eq!(opened.files[0].name, "factuur.pdf");
        assert_eq!(opened.files[0].bytes, b"%PDF");
        let last = tnef.len() - 1;
        tnef[last] ^= 1;
        assert!(open(&tnef).is_none());
    }
}
