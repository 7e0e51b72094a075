//! A whole message, read.

use crate::{Attachment, AttachmentId, AttachmentKind, Defect, Message, Query, Result};

use super::{
    Input, PIECE, Source, charset,
    decode::{Decoder, Encoding},
    envelope, header, interrupted, names,
    part::{self, Bodies, Leaf},
    scan::{Part, Scanner, Structure},
    words,
};

/// What is given of one text, in bytes as decoded.
const TEXT_CAP: usize = 1024 * 1024;

/// What is given of all attachments together. A listing holds many messages, and one of a thousand small parts must not
/// be worth all of them.
const INLINE_CAP: u64 = 8 * 1024 * 1024;

/// Where an attached message's subject has to stand.
const INNER_HEADER: usize = 64 * 1024;

/// A message so small is read at once, without another thread.
const SMALL: usize = 128 * 1024;

/// Fills in everything that the message's bytes tell. `shell` has the id, the folder, the received time and the read
/// flag; `mailbox` is the mailbox's own name, to recognise what it wrote itself.
///
/// # Errors
///
/// The file's: [`NotFound`](crate::ErrorKind::NotFound), [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
/// [`Storage`](crate::ErrorKind::Storage). No message is too broken to be read.
pub(crate) async fn read(source: &Source, shell: Message, query: &Query, mailbox: &str) -> Result<Message> {
    if let Source::Bytes(bytes) = source
        && bytes.len() <= SMALL
    {
        return read_now(source, shell, query, mailbox);
    }
    let (source, query, mailbox) = (source.clone(), query.clone(), mailbox.to_owned());
    tokio::task::spawn_blocking(move || read_now(&source, shell, &query, &mailbox)).await.map_err(interrupted)?
}

fn read_now(source: &Source, mut message: Message, query: &Query, mailbox: &str) -> Result<Message> {
    let mut input = Input::open(source)?;
    let structure = input.scan(Scanner::new())?;
    envelope::from_block(&structure.header, &mut message, query, mailbox);
    note(&mut message, header::fields(&structure.header).is_empty(), Defect::Unreadable);
    note(&mut message, structure.truncated, Defect::Truncated);
    note(&mut message, structure.too_complex, Defect::TooComplex);
    parts(&mut input, structure, &mut message, query)?;
    Ok(message)
}

fn note(message: &mut Message, found: bool, defect: Defect) {
    if found && !message.defects.contains(&defect) {
        message.defects.push(defect);
    }
}

fn parts(input: &mut Input, structure: Structure, message: &mut Message, query: &Query) -> Result<()> {
    let mut bodies = Bodies::default();
    let mut room = INLINE_CAP;
    for part in structure.parts {
        let header = &part.header;
        let size = part.body.end - part.body.start;
        match bodies.take(&header.content_type, header.disposition, header.name.is_some(), size) {
            Leaf::Nothing => {}
            Leaf::PlainText | Leaf::Html if !query.text => {}
            Leaf::PlainText => message.text = Some(text(input, &part, message)?),
            Leaf::Html => message.html = Some(text(input, &part, message)?),
            Leaf::Attachment => {
                let attachment = attachment(input, part, message, query.inline_up_to.min(room))?;
                room -= attachment.content.as_ref().map_or(0, |content| content.len() as u64);
                message.attachments.push(attachment);
            }
        }
    }
    Ok(())
}

/// The first `cap` bytes, decoded; whether that is all; and whether the encoding was broken.
fn decode(input: &mut Input, part: &Part, cap: u64) -> Result<(Vec<u8>, bool, bool)> {
    let mut decoder = Decoder::new(part.header.encoding);
    let mut out = Vec::new();
    let mut range = part.body.clone();
    while !range.is_empty() && out.len() as u64 <= cap {
        decoder.push(&input.next(&mut range)?, &mut out);
    }
    if range.is_empty() {
        decoder.finish(&mut out);
    }
    let whole = out.len() as u64 <= cap;
    out.truncate(usize::try_from(cap).unwrap_or(usize::MAX));
    Ok((out, whole, decoder.is_broken()))
}

fn text(input: &mut Input, part: &Part, message: &mut Message) -> Result<String> {
    let (bytes, whole, _) = decode(input, part, TEXT_CAP as u64)?;
    let mut text = charset::decode(part.header.charset.as_deref(), &bytes);
    // A charset of one byte a character may grow on the way to UTF-8.
    let end = text.floor_char_boundary(TEXT_CAP);
    note(message, !whole || end < text.len(), Defect::TextCut);
    text.truncate(end);
    Ok(text)
}

fn attachment(input: &mut Input, part: Part, message: &mut Message, inline_up_to: u64) -> Result<Attachment> {
    let size = part.body.end - part.body.start;
    let encoding = part.header.encoding;
    // Not even looked at, if even the densest encoding leaves too much. Lines as short as ten characters pass.
    let worth_trying = encoding.decoded_size(size) / 4 * 3 <= inline_up_to.saturating_add(PIECE as u64)
        && (encoding == Encoding::QuotedPrintable || encoding.decoded_size(size) / 2 <= inline_up_to);
    let (content, exact) = match worth_trying {
        true => {
            let (bytes, whole, broken) = decode(input, &part, inline_up_to)?;
            note(message, whole && broken, Defect::BrokenEncoding);
            (whole.then_some(bytes), whole)
        }
        false => (None, false),
    };
    note(message, encoding == Encoding::Unknown, Defect::BrokenEncoding);
    let is_message = part.header.content_type == "message/rfc822";
    let name = match (part.header.name.clone(), is_message) {
        (Some(name), _) => Some(name),
        (None, true) => inner_subject(input, &part, content.as_deref())?.or_else(|| part.header.other_name.clone()),
        (None, false) => part.header.other_name.clone(),
    };
    let mut attachment = Attachment::new(AttachmentId::new(part.id), part.header.content_type);
    attachment.name = name;
    attachment.kind = if is_message { AttachmentKind::Item } else { AttachmentKind::File };
    attachment.inline =
        part::is_inline(&attachment.content_type, part.header.disposition, part.header.content_id.as_deref());
    attachment.content_id = part.header.content_id;
    let known = content.as_ref().map(|content| content.len() as u64).filter(|_| exact);
    attachment.size_hint = Some(known.unwrap_or_else(|| encoding.decoded_size(size)));
    attachment.content = content.map(Into::into);
    Ok(attachment)
}

/// What an attached message without a file name is called by.
fn inner_subject(input: &mut Input, part: &Part, content: Option<&[u8]>) -> Result<Option<String>> {
    let start = match content {
        Some(content) => content[..content.len().min(INNER_HEADER)].to_vec(),
        None => decode(input, part, INNER_HEADER as u64)?.0,
    };
    let inner = header::fields(&start);
    Ok(header::first(&inner, "subject").and_then(|subject| names::from_subject(&words::text(subject, None))))
}
