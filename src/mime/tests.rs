//! Whole messages.

use jiff::Timestamp;

use super::*;
use crate::{Attachment, AttachmentId, AttachmentKind, Defect, FolderId, Message, MessageId, Query};

async fn read_bytes(bytes: impl Into<Bytes>, query: &Query) -> Message {
    let shell = Message::new(MessageId::new("1"), FolderId::new("inbox"), Timestamp::UNIX_EPOCH);
    read(&Source::Bytes(bytes.into()), shell, query, "facturen@contoso.example").await.unwrap()
}

#[tokio::test]
async fn an_ordinary_mail() {
    let mail = "From: a@b.example\r\nDate: Mon, 23 Feb 2026 16:22:40 +0100\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
                preamble\r\n--b\r\n\r\nHello\r\n--b\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\n\
                Content-Transfer-Encoding: base64\r\n\r\nSGVs\r\nbG8=\r\n--b--\r\nepilogue";
    let message = read_bytes(mail, &Query::default().with_text(true)).await;
    assert_eq!(message.defects, []);
    assert_eq!(message.text.as_deref(), Some("Hello"));
    let [attachment] = message.attachments.as_slice() else { panic!("{:?}", message.attachments) };
    assert_eq!((attachment.id.as_str(), attachment.name.as_deref()), ("2", Some("a.pdf")));
    assert_eq!(attachment.content.as_deref(), Some(&b"Hello"[..]));
    let bytes = content(Source::Bytes(mail.into()), &attachment.id).bytes(100).await.unwrap();
    assert_eq!(bytes, "Hello");
    let raw = content(Source::Bytes(mail.into()), &AttachmentId::raw()).bytes(1000).await.unwrap();
    assert_eq!(raw, mail);
    let kinds: Vec<_> = message.attachments.iter().map(|a: &Attachment| a.kind).collect();
    assert_eq!(kinds, [AttachmentKind::File]);
    assert!(!message.defects.contains(&Defect::Truncated));
}
