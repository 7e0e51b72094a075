//! Names, kinds, bytes, raw messages.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::room::{Room, done, folded_hash, refused, spec};
use crate::{
    Attachment, AttachmentId, AttachmentKind, ErrorKind, Message, Query,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions},
    testing::mail::{Mail, mail},
};

/// Bytes that no transfer encoding leaves alone: all values, no line ends to speak of.
pub(super) fn binary(count: usize) -> Bytes {
    (0..count).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect::<Vec<_>>().into()
}

fn named<'a>(message: &'a Message, name: &str) -> &'a Attachment {
    let found = message.attachments.iter().find(|a| a.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no attachment is named `{name}`; there are {:?}", names(message)))
}

fn names(message: &Message) -> Vec<Option<&str>> {
    message.attachments.iter().map(|a| a.name.as_deref()).collect()
}

pub(super) async fn files_have_their_names_and_bytes(room: &Room<'_>) {
    let pdf = binary(50_000);
    let sent = mail()
        .with_attachment("factuur.pdf", pdf.clone())
        .with_attachment("factuur.xml", "<?xml version=\"1.0\"?>\r\n<Invoice>€</Invoice>\r\n")
        .with_attachment("factuur.pdf", "another of the same name")
        .with_attachment("onbekend.weetniet", binary(1_000));
    let message = room.given(&sent, Query::default()).await;
    room.assert_same(&message, &sent).await;
    assert_eq!(message.attachments.len(), 4, "nothing else is attached; got {:?}", names(&message));
    let ids: std::collections::HashSet<_> = message.attachments.iter().map(|a| &a.id).collect();
    assert_eq!(ids.len(), 4, "each has an id of its own, also where names are the same");
    let first = &message.attachments[0];
    assert_eq!(first.name.as_deref(), Some("factuur.pdf"), "in the order they stand in the message");
    assert_eq!(first.content_type, "application/pdf");
    assert_eq!((first.kind, first.inline, first.url.as_deref()), (AttachmentKind::File, false, None));
    assert_eq!(room.download(&message.id, &first.id).await, pdf, "every byte");
}

pub(super) async fn hard_names_are_decoded(room: &Room<'_>) {
    let hard = [
        "Rekening voor geleverde diensten en materialen – januari 2026 (definitief) € 1.234,56.pdf",
        "naïef café.pdf",
        "請求書.pdf",
        "met \"aanhalingstekens\" en ; komma's, enzo.pdf",
        "100% %41.pdf",
    ];
    let sent = hard.iter().fold(mail(), |mail, name| mail.with_attachment(*name, format!("bytes of {name}")));
    let message = room.given(&sent, Query::default()).await;
    assert_eq!(names(&message), hard.map(Some), "as the sender wrote them");
    room.assert_same(&message, &sent).await;

    // RFC 2231 in the parameter, as written by hand: continuations, a charset that is not UTF-8.
    let raw = "Date: Sat, 31 Jan 2026 12:00:00 +0000\r\nFrom: a@b.example\r\nSubject: namen\r\n\
               Message-ID: <hard-names@b.example>\r\nMIME-Version: 1.0\r\n\
               Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhoi\r\n\
               --b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n \
               filename*0*=iso-8859-1'nl'na%EFe;\r\n filename*1*=f%20;\r\n filename*2=\"deel.pdf\"\r\n\r\nx\r\n--b--\r\n";
    let folder = room.folder("By hand").await;
    done(room.harness.deliver(&spec(&folder), raw.into(), super::room::START).await, "deliver a message");
    assert_eq!(names(&room.only(&folder, Query::default()).await), [Some("naïef deel.pdf")]);
}

pub(super) async fn an_attached_message_is_an_eml_item(room: &Room<'_>) {
    let inner = mail().with_subject("De factuur zelf").with_attachment("binnenin.pdf", binary(5_000));
    let sent = mail().with_subject("Fwd: De factuur zelf").with_attached_mail(inner.clone());
    let message = room.given(&sent, Query::default()).await;
    assert_eq!(message.attachments.len(), 1, "the message, and not what is in it; got {:?}", names(&message));
    let item = &message.attachments[0];
    assert_eq!(item.kind, AttachmentKind::Item);
    assert_eq!(item.content_type, "message/rfc822");
    assert!(item.file_name().ends_with(".eml"), "named `.eml`; got `{}`", item.file_name());
    let read = read_raw(&room.download(&message.id, &item.id).await).await;
    assert_eq!(read.0.subject.as_deref(), inner.subject(), "it is the message that was attached");
    assert_eq!(read.0.internet_message_id, inner.message_id());
    assert_eq!(read.1, file_hashes(&inner), "with what was attached to it");
}

pub(super) async fn an_inline_image_is_marked(room: &Room<'_>) {
    let logo = binary(2_000);
    let sent = mail()
        .with_html("<p><img src=\"cid:logo@leverancier\"></p>")
        .with_inline_image("logo.png", "logo@leverancier", logo.clone())
        .with_attachment("factuur.pdf", "pdf");
    let message = room.given(&sent, Query::default()).await;
    let image = named(&message, "logo.png");
    assert!(image.inline, "it is shown within the text");
    assert_eq!(image.content_id.as_deref(), Some("logo@leverancier"), "without angle brackets");
    assert_eq!((image.kind, image.content_type.as_str()), (AttachmentKind::File, "image/png"));
    assert_eq!(room.download(&message.id, &image.id).await, logo);
    assert!(!named(&message, "factuur.pdf").inline);
}

pub(super) async fn small_attachments_come_along_as_asked(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let sent = mail().with_attachment("klein.pdf", binary(1_000)).with_attachment("groot.pdf", binary(100_000));
    room.deliver(&folder, &sent).await;
    let message = room.only(&folder, Query::default().with_inline_up_to(0)).await;
    assert!(message.attachments.iter().all(|a| a.content.is_none()), "none were asked for");
    let message = room.only(&folder, Query::default().with_inline_up_to(10_000)).await;
    assert_eq!(named(&message, "groot.pdf").content, None, "it is larger than was asked for");
    for query in [Query::default().with_inline_up_to(10_000), Query::default().with_inline_up_to(1 << 20)] {
        // A service may give less than was asked for, and never something else.
        for attachment in room.only(&folder, query).await.attachments {
            if let Some(content) = attachment.content {
                let downloaded = room.download(&message.id, &attachment.id).await;
                assert_eq!(content, downloaded, "`{:?}` is the same either way", attachment.name);
            }
        }
    }
}

pub(super) async fn an_empty_file_is_empty(room: &Room<'_>) {
    let sent = mail().with_attachment("leeg.pdf", "").with_attachment("vol.pdf", "vol");
    let message = room.given(&sent, Query::default()).await;
    assert_eq!(room.download(&message.id, &named(&message, "leeg.pdf").id).await, "");
    assert_eq!(room.download(&message.id, &named(&message, "vol.pdf").id).await, "vol");
}

pub(super) async fn a_large_file_comes_in_full(room: &Room<'_>) {
    let large = binary(4 << 20);
    let sent = mail().with_attachment("scan.pdf", large.clone());
    let message = room.given(&sent, Query::default()).await;
    assert_eq!(message.attachments.len(), 1);
    assert_eq!(message.attachments[0].content, None, "it is larger than was asked for");
    let mut stream = room.account.download_attachment(&message.id, &message.attachments[0].id).into_stream();
    let mut got = Vec::new();
    while let Some(piece) = done(stream.try_next().await, "download") {
        assert!(piece.len() <= 1 << 20, "in pieces; one has {} bytes", piece.len());
        got.extend_from_slice(&piece);
    }
    assert!(got == large, "every byte of {}; got {}", large.len(), got.len());
}

pub(super) async fn text_files_are_attachments_too(room: &Room<'_>) {
    let sent = mail()
        .with_text("De tekst zelf.\r\n")
        .with_attachment("regels.csv", "a;b\r\n1;2\r\n")
        .with_attachment("lees mij.txt", "eerste regel\ntweede € regel\n");
    let message = room.given(&sent, Query::default().with_text(true)).await;
    room.assert_same(&message, &sent).await;
    assert!(message.text.is_none_or(|text| !text.contains("regel")), "the files are not the text");
}

pub(super) async fn the_raw_message_is_the_same_message(room: &Room<'_>) {
    let sent = mail()
        .with_subject("Ruw – en compleet")
        .with_attachment("factuur.pdf", binary(30_000))
        .with_attachment("naïef.xml", "<a/>\r\n");
    let message = room.given(&sent, Query::default()).await;
    let raw = room.download(&message.id, &AttachmentId::raw()).await;
    let (read, files) = read_raw(&raw).await;
    assert_eq!(read.internet_message_id, sent.message_id());
    assert_eq!(read.subject.as_deref(), sent.subject());
    assert_eq!(read.from.as_ref(), sent.from());
    assert_eq!(files, file_hashes(&sent), "names and hashes of the files");
}

pub(super) async fn the_raw_message_has_the_same_bytes(room: &Room<'_>) {
    let sent = mail().with_attachment("factuur.pdf", binary(3_000)).with_header("X-Odd", "  two  spaces ");
    let message = room.given(&sent, Query::default()).await;
    let raw = room.download(&message.id, &AttachmentId::raw()).await;
    assert_eq!(folded_hash(&raw), folded_hash(&sent.build()));
}

pub(super) async fn an_unknown_attachment_is_not_found(room: &Room<'_>) {
    let message = room.given(&mail().with_attachment("a.pdf", "a"), Query::default()).await;
    for id in ["no such attachment", "99", "1.2.3.4", ""] {
        let content = room.account.download_attachment(&message.id, &AttachmentId::new(id));
        refused(content.bytes(1 << 20).await, ErrorKind::NotFound, &format!("downloading the attachment `{id}`"));
    }
    assert_eq!(room.download(&message.id, &message.attachments[0].id).await, "a");
}

pub(super) async fn a_link_is_told_and_refused(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let (name, url) = ("begroting.xlsx", "https://contoso.example/begroting.xlsx");
    let sent = mail().with_attachment("a.pdf", "a");
    done(room.harness.deliver_link(&spec(&folder), sent.build(), name, url).await, "deliver a link");
    let message = room.only(&folder, Query::default()).await;
    let link = named(&message, name);
    assert_eq!((link.kind, link.url.as_deref()), (AttachmentKind::Link, Some(url)));
    let error = room.account.download_attachment(&message.id, &link.id).bytes(1 << 20).await;
    let error = refused(error, ErrorKind::Unsupported, "downloading a link");
    assert!(error.to_string().contains(url), "the error says where it leads; got: {error}");
}

pub(super) async fn attachment_ids_survive_reopening(room: &Room<'_>) {
    let message =
        room.given(&mail().with_attachment("a.pdf", "a").with_attachment("b.pdf", "b"), Query::default()).await;
    let again = done(room.harness.open().await, "open the account again");
    for (name, bytes) in [("a.pdf", "a"), ("b.pdf", "b")] {
        let content = again.download_attachment(&message.id, &named(&message, name).id);
        assert_eq!(done(content.bytes(1 << 20).await, "download by ids from before"), bytes);
    }
}

/// Reads raw bytes as a message: an account of this crate does the parsing.
async fn read_raw(raw: &Bytes) -> (Message, Vec<(String, String)>) {
    let mailbox = MemoryMailbox::new("reader@contoso.nl");
    done(mailbox.deliver("Inbox", raw.clone(), super::room::START), "keep the raw bytes");
    let account = MemoryAccount::open("reader", &mailbox, MemoryOptions::default());
    let inbox = done(crate::MailAccount::resolve_folder(&account, &done("Inbox".parse(), "parse")).await, "find it");
    let query = Query::default().with_inline_up_to(u64::MAX);
    let listed = crate::MailAccount::fetch_messages(&account, &inbox.id, query).try_collect::<Vec<_>>().await;
    let message = done(listed, "read the raw bytes").remove(0);
    let mut files: Vec<_> = message
        .attachments
        .iter()
        .map(|a| (a.name.clone().unwrap_or_default(), folded_hash(a.content.as_deref().unwrap_or_default())))
        .collect();
    files.sort();
    (message, files)
}

fn file_hashes(mail: &Mail) -> Vec<(String, String)> {
    let files = mail.files().into_iter();
    let mut files: Vec<_> =
        files.map(|(name, bytes)| (name.unwrap_or_default().to_owned(), folded_hash(&bytes))).collect();
    files.sort();
    files
}
