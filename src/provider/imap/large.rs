//! Large messages, read by their structure: headers and small parts are fetched, large parts are not.
//!
//! What was fetched is put together as a message in which a mark stands where a large part's content would be. That
//! message is read by the same code as any other, so that a mail looks the same whichever way it came; the marks then
//! say which section of the server's message each attachment is. If anything does not fit, the whole message is read
//! instead.

use std::{collections::HashMap, sync::Arc};

use base64_simd::STANDARD;
use bytes::Bytes;

use super::{
    failure::{Failure, Outcome},
    handle::{Handle, PartId},
    pool::Shared,
    session::Session,
    wire::{
        encode::Command,
        fetch::{Data, Fetch},
        response::Untagged,
        structure::{Part, Structure},
    },
};
use crate::{
    Defect, Message, Query, Result,
    mime::{
        self, Source,
        decode::{Decoder, Encoding},
    },
};

/// A text that is longer than this may be anything, such as a file in uuencode; the whole message is read instead.
const MAX_TEXT: u64 = 256 * 1024;
/// Bytes of small parts that are fetched with one message.
const MAX_FETCHED: u64 = 4 << 20;
/// Parts in one message; beyond that it is read whole.
const MAX_PARTS: usize = 100;

/// Structure and header of messages in the open folder.
pub(crate) async fn structures(session: &mut Session, uids: &[u64]) -> Outcome<HashMap<u64, Fetch>> {
    fetch(session, uids, "(UID BODYSTRUCTURE BODY.PEEK[HEADER])").await
}

async fn fetch(session: &mut Session, uids: &[u64], items: &str) -> Outcome<HashMap<u64, Fetch>> {
    let mut found: HashMap<u64, Fetch> = HashMap::new();
    session.wait_for_progress();
    let tag = session.start(Command::new("UID FETCH").set(uids).raw(items)).await?;
    session
        .finish(tag, "UID FETCH", |untagged| {
            if let Untagged::Fetch(fetch) = untagged
                && let Some(uid) = fetch.uid
                && uids.contains(&uid)
            {
                merge(found.entry(uid).or_default(), *fetch);
            }
        })
        .await?;
    Ok(found)
}

/// Several lines may carry pieces of one message.
fn merge(into: &mut Fetch, from: Fetch) {
    into.uid = from.uid.or(into.uid);
    into.structure = from.structure.or(into.structure.take());
    into.flags = from.flags.or(into.flags.take());
    into.sections.extend(from.sections);
    into.damaged |= from.damaged;
}

fn bytes<'a>(fetch: &'a Fetch, section: &str) -> Option<&'a Bytes> {
    match &fetch.section(section)?.data {
        Data::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// What is to be fetched of a message, and what it will be put together from.
pub(crate) struct Plan {
    top: Part,
    header: Bytes,
    /// Sections whose content is fetched.
    texts: Vec<String>,
    small: Vec<String>,
}

impl Plan {
    /// `None` where the structure does not do, and the whole message must be read.
    pub(crate) fn new(fetched: &Fetch, query: &Query) -> Option<Self> {
        let Some(Structure::Part(top)) = &fetched.structure else { return None };
        let header = bytes(fetched, "HEADER").filter(|header| !header.is_empty())?;
        let leaves = top.leaves();
        if leaves.len() > MAX_PARTS {
            return None;
        }
        let (mut texts, mut small) = (Vec::new(), Vec::new());
        let mut fetched = 0;
        for leaf in leaves {
            let size = leaf.size?;
            if is_text(leaf) {
                if size > MAX_TEXT {
                    return None;
                }
                texts.push(leaf.section.clone());
                continue;
            }
            // Encoded messages are against the rules, and what servers say of their insides is wrong.
            if leaf.is_message() && !matches!(leaf.encoding.as_str(), "7bit" | "8bit" | "binary") {
                return None;
            }
            let decoded = Encoding::from_header(leaf.encoding.as_bytes()).decoded_size(size);
            if decoded <= query.inline_up_to && fetched + size <= MAX_FETCHED {
                fetched += size;
                small.push(leaf.section.clone());
            }
        }
        Some(Self { top: (**top).clone(), header: header.clone(), texts, small })
    }

    fn items(&self) -> String {
        let mut items = String::from("(UID");
        let mut ask = |section: &str| items.push_str(&format!(" BODY.PEEK[{section}]"));
        for leaf in self.top.leaves() {
            if self.top.is_multipart() {
                ask(&format!("{}.MIME", leaf.section));
            }
            if self.texts.contains(&leaf.section) || self.small.contains(&leaf.section) {
                ask(&leaf.section);
            } else if leaf.is_message() {
                ask(&format!("{}.HEADER", leaf.section));
            }
        }
        items.push(')');
        items
    }

    /// Fetches the parts; `None` where the message is gone.
    pub(crate) async fn fetch(&self, session: &mut Session, uid: u64) -> Outcome<Option<Fetch>> {
        let items = self.items();
        if items == "(UID)" {
            return Ok(Some(Fetch::default()));
        }
        // Far below the line limits of servers for any message that people send.
        if items.len() > 7_000 {
            return Err(Failure::Protocol("too many parts to name"));
        }
        Ok(fetch(session, &[uid], &items).await?.remove(&uid))
    }

    /// The message, or `None` where what came does not fit together.
    pub(crate) async fn message(
        &self,
        shared: &Arc<Shared>,
        parts: &Fetch,
        shell: Message,
        query: &Query,
    ) -> Result<Option<Message>> {
        let mark = Mark::new(shared);
        let Some(skeleton) = self.skeleton(parts, &mark) else { return Ok(None) };
        let everything = query.clone().with_inline_up_to(u64::MAX);
        let source = Source::Bytes(skeleton.into());
        let mut message = mime::read(&source, shell, &everything, &shared.settings.info.name).await?;
        let mut texts: Vec<(&Part, Vec<u8>)> = Vec::new();
        for leaf in self.top.leaves().into_iter().filter(|leaf| self.texts.contains(&leaf.section)) {
            let Some(content) = bytes(parts, &leaf.section) else { return Ok(None) };
            texts.push((leaf, decode(leaf, content)));
        }
        for attachment in &mut message.attachments {
            let Some(content) = attachment.content.take() else { return Ok(None) };
            let (leaf, content) = match mark.find(&content) {
                Some(section) => {
                    let leaves = self.top.leaves();
                    let Some(leaf) = leaves.into_iter().find(|leaf| leaf.section == section) else { return Ok(None) };
                    let fetched = self.small.contains(&leaf.section);
                    let fetched = if fetched { bytes(parts, &leaf.section).map(|b| decode(leaf, b)) } else { None };
                    (leaf, fetched)
                }
                None => match texts.iter().find(|(_, text)| *text == content) {
                    Some((leaf, text)) => (*leaf, Some(text.clone())),
                    // Something within a text, such as a file in uuencode: no section of the server's.
                    None => return Ok(None),
                },
            };
            let id = PartId { section: leaf.section.clone(), encoding: leaf.encoding.clone(), size: leaf.size };
            attachment.id = id.id();
            let encoding = Encoding::from_header(leaf.encoding.as_bytes());
            attachment.size_hint = match &content {
                Some(content) => Some(content.len() as u64),
                None => leaf.size.map(|size| encoding.decoded_size(size)),
            };
            attachment.content = content.filter(|content| content.len() as u64 <= query.inline_up_to).map(Bytes::from);
        }
        // A leaf that should be attached and is in no list has been lost on the way.
        let listed = message.attachments.iter().filter_map(|a| PartId::parse(&a.id)).map(|p| p.section);
        let listed: Vec<String> = listed.collect();
        let lost = self
            .top
            .leaves()
            .into_iter()
            .any(|leaf| !self.texts.contains(&leaf.section) && !listed.contains(&leaf.section));
        if lost {
            return Ok(None);
        }
        // Ours, not the sender's.
        message.defects.retain(|defect| !matches!(defect, Defect::Truncated | Defect::BrokenEncoding));
        Ok(Some(message))
    }

    fn skeleton(&self, parts: &Fetch, mark: &Mark) -> Option<Vec<u8>> {
        let mut out = self.header.to_vec();
        end_header(&mut out);
        if !self.top.is_multipart() {
            self.content(&self.top, parts, mark, &mut out)?;
            return Some(out);
        }
        let boundary = self.top.params.iter().find(|(name, _)| name == "boundary").map(|(_, value)| value)?;
        self.children(&self.top, boundary, parts, mark, &mut out)?;
        Some(out)
    }

    fn children(&self, part: &Part, boundary: &[u8], parts: &Fetch, mark: &Mark, out: &mut Vec<u8>) -> Option<()> {
        for child in &part.children {
            out.extend_from_slice(b"\r\n--");
            out.extend_from_slice(boundary);
            out.extend_from_slice(b"\r\n");
            if child.is_multipart() {
                let inner = format!("{}-{}", mark.0, child.section);
                out.extend_from_slice(
                    format!("Content-Type: {}; boundary=\"{inner}\"\r\n\r\n", child.content_type).as_bytes(),
                );
                self.children(child, inner.as_bytes(), parts, mark, out)?;
            } else {
                let header = bytes(parts, &format!("{}.MIME", child.section))?;
                // Some servers answer with the header of what is inside an attached message.
                let says_message = memchr::memmem::find(&header.to_ascii_lowercase(), b"message/").is_some();
                if header.trim_ascii().is_empty() || (child.is_message() && !says_message) {
                    return None;
                }
                out.extend_from_slice(header);
                end_header(out);
                self.content(child, parts, mark, out)?;
            }
        }
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(boundary);
        out.extend_from_slice(b"--\r\n");
        Some(())
    }

    fn content(&self, part: &Part, parts: &Fetch, mark: &Mark, out: &mut Vec<u8>) -> Option<()> {
        if self.texts.contains(&part.section) {
            out.extend_from_slice(bytes(parts, &part.section)?);
            return Some(());
        }
        if part.is_message() {
            // What it is called stands in its own header.
            let own = match self.small.contains(&part.section) {
                true => {
                    let whole = bytes(parts, &part.section)?;
                    let end = memchr::memmem::find(whole, b"\r\n\r\n").unwrap_or(whole.len());
                    whole.slice(..end)
                }
                false => bytes(parts, &format!("{}.HEADER", part.section))?.clone(),
            };
            out.extend_from_slice(&own);
            end_header(out);
        } else if self.small.contains(&part.section) && bytes(parts, &part.section)?.is_empty() && part.size != Some(0)
        {
            // The server does not find its own part.
            return None;
        }
        let text = mark.of(&part.section);
        match Encoding::from_header(part.encoding.as_bytes()) {
            Encoding::Base64 => out.extend_from_slice(STANDARD.encode_to_string(text).as_bytes()),
            _ => out.extend_from_slice(text.as_bytes()),
        }
        Some(())
    }
}

fn end_header(out: &mut Vec<u8>) {
    while out.ends_with(b"\r\n") {
        out.truncate(out.len() - 2);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// A text that may be the message's own.
fn is_text(part: &Part) -> bool {
    matches!(part.content_type.as_str(), "text/plain" | "text/html")
        && part.disposition.as_deref() != Some("attachment")
}

fn decode(part: &Part, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut decoder = Decoder::new(Encoding::from_header(part.encoding.as_bytes()));
    decoder.push(content, &mut out);
    decoder.finish(&mut out);
    out
}

/// A text that no mail contains by chance.
struct Mark(String);

impl Mark {
    fn new(shared: &Shared) -> Self {
        Self(format!("part-{:032x}", u128::from_le_bytes(shared.context.random())))
    }

    fn of(&self, section: &str) -> String {
        format!("{}({section})", self.0)
    }

    fn find(&self, content: &[u8]) -> Option<String> {
        let at = memchr::memmem::find(content, self.0.as_bytes())?;
        let rest = content[at + self.0.len()..].strip_prefix(b"(")?;
        let end = rest.iter().position(|b| *b == b')')?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}

/// Reads one large message in the open folder. `Ok(None)` where it must be read whole.
pub(crate) async fn read(
    session: &mut Session,
    shared: &Arc<Shared>,
    handle: &Handle,
    fetched: &Fetch,
    shell: &Message,
    query: &Query,
) -> Outcome<Option<Message>> {
    let Some(plan) = Plan::new(fetched, query) else { return Ok(None) };
    let parts = match plan.fetch(session, handle.uid).await {
        Ok(parts) => parts,
        // Its own structure, and it does not like to be asked for its parts.
        Err(failure) if failure.refused().is_some() && failure.leaves_session_usable() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let Some(parts) = parts else { return Ok(None) };
    Ok(plan.message(shared, &parts, shell.clone(), query).await?)
}
