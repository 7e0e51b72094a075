//! Whole messages: ordinary, odd, hostile.

use std::fmt::Write as _;

use jiff::Timestamp;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{AttachmentId, AttachmentKind, Defect, FolderId, Message, MessageId, Query};

fn shell() -> Message {
    Message::new(MessageId::new("1"), FolderId::new("inbox"), Timestamp::UNIX_EPOCH)
}

fn read_bytes(bytes: impl Into<Bytes>) -> Message {
    let source = Source::Bytes(bytes.into());
    runtime().block_on(read(&source, shell(), &Query::default().with_text(true), "facturen@contoso.example")).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn download(mail: impl Into<Bytes>, id: &str) -> Result<Bytes> {
    runtime().block_on(content(Source::Bytes(mail.into()), &AttachmentId::new(id)).bytes(1 << 30))
}

/// One line for each attachment: id, name, type, and what it holds.
fn listed(mail: impl Into<Bytes>) -> Vec<String> {
    let mail = mail.into();
    let line = |a: &crate::Attachment| {
        let bytes = download(mail.clone(), a.id.as_str()).unwrap();
        let name = a.name.as_deref().unwrap_or("-");
        format!("{} {name} {} {:?}", a.id, a.content_type, String::from_utf8_lossy(&bytes))
    };
    read_bytes(mail.clone()).attachments.iter().map(line).collect()
}

const ORDINARY: &str = "From: a@b.example\r\n\
    Date: Mon, 23 Feb 2026 16:22:40 +0100\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n\
    preamble\r\n\
    --b\r\n\r\nHello\r\n\
    --b\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVs\r\nbG8=\r\n\
    --b--\r\n\
    epilogue";

#[test]
fn an_ordinary_mail() {
    let message = read_bytes(ORDINARY);
    assert_eq!(message.defects, []);
    assert_eq!(message.text.as_deref(), Some("Hello"));
    let [attachment] = message.attachments.as_slice() else { panic!("{:?}", message.attachments) };
    assert_eq!((attachment.id.as_str(), attachment.name.as_deref()), ("2", Some("a.pdf")));
    assert_eq!((attachment.kind, attachment.inline), (AttachmentKind::File, false));
    assert_eq!((attachment.content.as_deref(), attachment.size_hint), (Some(&b"Hello"[..]), Some(5)));
    assert_eq!(download(ORDINARY, "2").unwrap(), "Hello");
    assert_eq!(download(ORDINARY, AttachmentId::RAW).unwrap(), ORDINARY);
    assert_eq!(download(ORDINARY, "3").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn line_ends_of_any_kind() {
    for end in ["\n", "\r", "\r\n"] {
        assert_eq!(listed(ORDINARY.replace("\r\n", end)), ["2 a.pdf application/pdf \"Hello\""], "{end:?}");
    }
    let mixed = ORDINARY.replace("\r\n--b", "\n--b").replace("--b\r\n", "--b \t\r");
    assert_eq!(listed(mixed), ["2 a.pdf application/pdf \"Hello\""]);
}

/// Header and body of a multipart with the boundary `b`, written with LF.
fn mixed(parts: &[&str]) -> String {
    let mut mail = "Content-Type: multipart/mixed; boundary=b\n\n".to_owned();
    for part in parts {
        write!(mail, "--b\n{part}\n").unwrap();
    }
    mail + "--b--\n"
}

#[test]
fn what_is_an_attachment() {
    assert_eq!(
        listed(mixed(&[
            "Content-Type: text/plain\n\nbody",
            "Content-Type: text/html\n\n<p>body",
            "Content-Type: text/plain\n\nfooter",
            "Content-Disposition: attachment\n\ndeclared",
            "Content-Type: text/html; name=x.html\n\nnamed",
            "Content-Type: text/calendar\n\ninvitation",
            "Content-Type: application/ms-tnef; name=winmail.dat\n\ntnef",
            "\n",
        ])),
        [
            "3 - text/plain \"footer\"",
            "4 - text/plain \"declared\"",
            "5 x.html text/html \"named\"",
            "6 - text/calendar \"invitation\"",
            "7 winmail.dat application/ms-tnef \"tnef\"",
        ]
    );
}

#[test]
fn nested_parts_have_nested_ids() {
    let inner = "Content-Type: multipart/related; boundary=c\n\n--c\nContent-Type: text/html\n\n<img>\n\
                 --c\nContent-Type: image/png\nContent-ID: <logo>\n\nPNG\n--c--\n";
    let signature = "Content-Type: application/pgp-signature\n\nsigned";
    let message = read_bytes(mixed(&[inner, signature]));
    let ids: Vec<_> = message.attachments.iter().map(|a| (a.id.as_str(), a.inline, a.content_id.as_deref())).collect();
    assert_eq!(ids, [("1.2", true, Some("logo")), ("2", false, None)]);
    assert_eq!(message.html.as_deref(), Some("<img>"));
    assert_eq!(message.attachments[1].file_name(), "signature.asc");
}

#[test]
fn a_message_that_is_one_file() {
    let mail = "From: a@b.example\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\
                Content-Transfer-Encoding: base64\n\nSGVsbG8=\n";
    assert_eq!(listed(mail), ["1 a.pdf application/pdf \"Hello\""]);
    let opaque = "Content-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nopaque";
    assert_eq!(read_bytes(opaque).attachments[0].file_name(), "smime.p7m");
}

#[test]
fn an_attached_message_is_one_attachment() {
    let inner = "Subject: =?utf-8?Q?Caf=C3=A9?=\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\
                 Content-Type: application/pdf; name=a.pdf\n\nPDF\n--c--";
    let encoded = base64_simd::STANDARD.encode_to_string(inner);
    let mail = mixed(&[
        &format!("Content-Type: message/rfc822\n\n{inner}"),
        &format!("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{encoded}"),
        &format!("Content-Type: message/rfc822; name=given.eml\n\n{inner}"),
        "Content-Type: message/rfc822\nContent-Description: described\n\nFrom: a@b.example\n\nno subject",
    ]);
    let message = read_bytes(mail.clone());
    let names: Vec<_> = message.attachments.iter().map(|a| a.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["Café.eml", "Café.eml", "given.eml", "described"]);
    for (attachment, id) in message.attachments.iter().zip(["1", "2", "3"]) {
        assert_eq!((attachment.id.as_str(), attachment.kind), (id, AttachmentKind::Item));
        assert_eq!(download(mail.clone(), id).unwrap(), inner);
    }
    assert_eq!(message.attachments[3].file_name(), "described.eml");
    let digest = mail.replace("multipart/mixed; boundary=b", "multipart/digest; boundary=b");
    assert_eq!(
        read_bytes(digest.replace("Content-Type: message/rfc822\n", "X: y\n")).attachments[0].name.as_deref(),
        Some("Café.eml")
    );
}

#[test]
fn uuencoded_files_in_the_text_are_attachments() {
    let uu = "begin 644 my file.txt\n#0V%T\n`\nend\n";
    let mail = format!("From: a@b.example\n\nSee below\nbegin with this\n{uu}and\nbegin 600 b.txt\n#0V%T\n");
    assert_eq!(
        listed(mail),
        ["1.u1 my file.txt application/octet-stream \"Cat\"", "1.u2 b.txt application/octet-stream \"Cat\""]
    );
    let mail = mixed(&["\nhello", &format!("Content-Type: text/plain\n\n{uu}")]);
    assert_eq!(listed(mail)[1], "2.u1 my file.txt application/octet-stream \"Cat\"");
    assert!(listed("From: a@b.example\n\nbegin 644 x\nthat was all\n").is_empty());
}

#[test]
fn structures_that_are_broken() {
    let pdf = "Content-Type: application/pdf; name=a.pdf\n\nPDF";
    let expected = ["2 a.pdf application/pdf \"PDF\""];
    let whole = mixed(&["Content-Type: text/plain\n\ntext", pdf]);
    for (what, mail) in [
        ("no last boundary", whole.replace("\n--b--\n", "")),
        ("a mark after the last boundary", whole.replace("--b--\n", "--b-->\n rubbish")),
        ("no boundary parameter", whole.replace("; boundary=b", "")),
        ("the wrong boundary", whole.replace("boundary=b", "boundary=other")),
        ("two content types", whole.replacen("Content-Type", "Content-Type: text/plain\nContent-Type", 1)),
        ("the indentation lost", whole.replacen("; boundary", ";\nboundary", 1)),
        ("no blank line after the header", whole.replacen("boundary=b\n\n", "boundary=b\n", 1)),
        ("a stray line in the header", format!("From: a@b.example\nthis is no field\nnor this\n{whole}")),
        ("blank lines and an mbox separator first", format!("\n\nFrom a@b Mon Feb 23\n{whole}")),
        ("a boundary that begins like another", whole.replace("\n\ntext", "\n\n--bb\n--b-\n--ab\ntext")),
        (
            "the inner multipart not closed",
            whole.replacen("text/plain", "multipart/alternative; boundary=c\n\n--c\nContent-Type: text/plain", 1),
        ),
    ] {
        assert_eq!(listed(mail), expected, "{what}");
    }
    let truncated = read_bytes(whole.replace("\n--b--\n", "")).defects;
    assert!(truncated.contains(&Defect::Truncated));
    assert!(!read_bytes(whole).defects.contains(&Defect::Truncated));
    // What has no parts is text.
    let message = read_bytes("Content-Type: multipart/mixed; boundary=b\n\nno parts here");
    assert_eq!((message.text.as_deref(), message.attachments.len()), (Some("no parts here"), 0));
    // The header of a part may be all there is of it.
    assert_eq!(listed(mixed(&["Content-Type: application/pdf"])), ["1 - application/pdf \"\""]);
}

#[test]
fn encodings_that_are_broken() {
    let part = |encoding: &str, body: &str| {
        read_bytes(mixed(&[&format!("Content-Type: x/y\nContent-Transfer-Encoding: {encoding}\n\n{body}")]))
    };
    for (encoding, body, expected, broken) in [
        ("base64", "SGVs*bG8", "Hello", true),
        ("base64 (comment)", "SGVsbG8", "Hello", false),
        ("x-none-such", "a=b", "a=b", true),
        ("quoted-printable", "a=3Db=ZZ", "a=b=ZZ", true),
    ] {
        let message = part(encoding, body);
        assert_eq!(message.attachments[0].content.as_deref(), Some(expected.as_bytes()), "{encoding}");
        assert_eq!(message.defects.contains(&Defect::BrokenEncoding), broken, "{encoding}");
    }
}

#[test]
fn only_small_attachments_come_along() {
    let mail =
        mixed(&["Content-Type: x/y\nContent-Transfer-Encoding: base64\n\nSGVsbG8=", "Content-Type: x/y\n\n123456"]);
    let read_up_to = |limit| {
        let query = Query::default().with_inline_up_to(limit);
        let message = runtime().block_on(read(&Source::Bytes(mail.clone().into()), shell(), &query, "")).unwrap();
        message.attachments.iter().map(|a| a.content.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(read_up_to(6), [true, true]);
    assert_eq!(read_up_to(5), [true, false]);
    assert_eq!(read_up_to(4), [false, false]);
}

#[test]
fn texts_are_decoded_and_cut() {
    let message = read_bytes(&b"Content-Type: text/html; charset=iso-8859-15\n\n<p>\xa4"[..]);
    assert_eq!(message.html.as_deref(), Some("<p>€"));
    let message = read_bytes(format!("From: a@b.example\n\n{}", "é".repeat(600_000)));
    assert_eq!(message.text.unwrap().len(), 1 << 20);
    assert!(message.defects.contains(&Defect::TextCut));
    let without = runtime().block_on(read(&Source::Bytes(ORDINARY.into()), shell(), &Query::default(), "")).unwrap();
    assert_eq!(without.text, None);
}

#[test]
fn nothing_that_can_be_understood() {
    for mail in [&b""[..], b"\0\0\0\0", b"\n\n\n", b"no header at all\n\nbody"] {
        let message = read_bytes(mail);
        assert!(message.defects.contains(&Defect::Unreadable), "{mail:?}");
        assert!(message.attachments.is_empty());
        assert_eq!(download(mail, AttachmentId::RAW).unwrap(), mail);
    }
}

#[test]
fn twenty_thousand_nested_multiparts() {
    let mut mail = String::new();
    for level in 0..20_000 {
        write!(mail, "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n").unwrap();
    }
    let message = read_bytes(mail.clone());
    assert!(message.defects.contains(&Defect::TooComplex) && message.defects.contains(&Defect::Truncated));
    // What is deeper is one attachment, and still all there.
    let [attachment] = message.attachments.as_slice() else { panic!("{}", message.attachments.len()) };
    let rest = download(mail.clone(), attachment.id.as_str()).unwrap();
    assert!(mail.as_bytes().ends_with(&rest) && rest.len() > mail.len() / 2);
}

#[test]
fn a_hundred_thousand_parts() {
    let parts = "--b\nContent-Type: application/pdf\n\nPDF\n".repeat(100_000);
    let mail = format!("Content-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n");
    let message = read_bytes(mail.clone());
    assert!(message.defects.contains(&Defect::TooComplex));
    assert_eq!(message.attachments.len(), 10_001);
    let last = &message.attachments[10_000];
    let rest = download(mail.clone(), last.id.as_str()).unwrap();
    assert!(mail.as_bytes().ends_with(&rest) && rest.len() > mail.len() / 2);
    assert!(message.inline_bytes() <= 8 * 1024 * 1024);
}

#[test]
fn a_header_line_of_ten_megabytes() {
    let long = "x".repeat(10_000_000);
    let mail = format!("Subject: {long}\nX-More: {long}\nContent-Type: application/pdf; name=a.pdf\n\nPDF");
    assert_eq!(listed(mail.clone()), ["1 a.pdf application/pdf \"PDF\""]);
    assert!(read_bytes(mail).subject.unwrap().len() <= 64 * 1024);
    let folded = format!("X: y\n{}Content-Type: application/pdf\n\nPDF", " more\n".repeat(1_000_000));
    assert_eq!(listed(folded), ["1 - application/pdf \"PDF\""]);
    let name = format!("Content-Type: application/pdf; name=\"{long}\"\n\nPDF");
    assert!(read_bytes(name).attachments[0].name.as_ref().unwrap().len() <= 1024);
}

#[test]
fn openings_without_an_end() {
    for piece in ["=?utf-8?Q?", "\"", "(", "name*0=\"", "<", "a:", "=?", "\\", "begin 644 x\n", "--\n", "--b\n", "--b"]
    {
        let flood = piece.repeat(200_000 / piece.len());
        for mail in [
            format!("Subject: {flood}\nFrom: {flood}\nReferences: {flood}\nDate: {flood}\n\n{flood}"),
            format!(
                "Content-Type: multipart/mixed; boundary=b; {flood}\n\n--b\nContent-Type: text/plain; {flood}\n\n{flood}"
            ),
        ] {
            read_bytes(mail);
        }
    }
}

#[test]
fn a_file_reads_like_memory_and_is_never_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mail");
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let encoded = base64_simd::STANDARD.encode_to_string(&big);
    let lines: Vec<_> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let mail = ORDINARY.replace("SGVs\r\nbG8=", &lines.join("\r\n"));
    std::fs::write(&path, &mail).unwrap();

    let source = Source::File(Arc::new(path.clone()));
    runtime().block_on(async {
        let message = read(&source, shell(), &Query::default(), "").await.unwrap();
        assert_eq!((message.attachments[0].name.as_deref(), &message.attachments[0].content), (Some("a.pdf"), &None));
        let hint = message.attachments[0].size_hint.unwrap();
        assert!((2_900_000..3_100_000).contains(&hint), "{hint}");
        assert_eq!(content(source.clone(), &AttachmentId::new("2")).bytes(1 << 30).await.unwrap(), big);
        let raw = content(source.clone(), &AttachmentId::raw()).bytes(1 << 30).await.unwrap();
        assert_eq!(raw, mail);

        // Renaming does not disturb a download that has begun; cutting the file off is an error.
        let mut stream = content(source.clone(), &AttachmentId::new("2")).into_stream();
        use futures::StreamExt as _;
        stream.next().await.unwrap().unwrap();
        let moved = dir.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        stream.next().await.unwrap().unwrap();
        std::fs::File::options().write(true).open(&moved).unwrap().set_len(1000).unwrap();
        let mut last = stream.next().await;
        while let Some(Ok(_)) = last {
            last = stream.next().await;
        }
        assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
        let gone = content(source.clone(), &AttachmentId::new("2")).bytes(1 << 30).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        assert_eq!(read(&source, shell(), &Query::default(), "").await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// What must hold for every message there can be.
fn check(mail: &[u8], cuts: &[usize]) {
    let whole = {
        let mut scanner = scan::Scanner::new();
        scanner.push(mail);
        scanner.finish(mail.len() as u64)
    };
    let mut scanner = scan::Scanner::new();
    let mut rest = mail;
    for &cut in cuts {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        scanner.push(piece);
        rest = after;
    }
    scanner.push(rest);
    assert_eq!(format!("{:?}", scanner.finish(mail.len() as u64)), format!("{whole:?}"));

    let message = read_bytes(mail.to_vec());
    for attachment in &message.attachments {
        let bytes = download(mail.to_vec(), attachment.id.as_str()).unwrap();
        // Every attachment here is small enough to come along.
        assert_eq!(attachment.content.as_ref(), Some(&bytes));
        assert!(!attachment.file_name().is_empty());
    }
    let ids: std::collections::HashSet<_> = message.attachments.iter().map(|a| a.id.clone()).collect();
    assert_eq!(ids.len(), message.attachments.len());
}

fn demo_mail() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<Vec<u8>> = demo_files().into_iter().map(|(_, bytes)| bytes).filter(|b| b.len() < 20_000).collect();
    proptest::sample::select(files)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes(
        pieces in proptest::collection::vec(prop_oneof![
            proptest::sample::select(vec![
                "\n", "\r\n", "\r", " ", "--", "--b", "--b--", "--b\n", "Content-Type: ", "multipart/mixed; boundary=b\n",
                "text/plain", "message/rfc822\n\n", "application/pdf; name=", "Content-Transfer-Encoding: base64\n\n", ":",
                "begin 644 x\n", "#0V%T\n", "end\n", "=?utf-8?Q?", "?=", "\"", ";", "From: ", "Date: ", "boundary=\"c\"\n",
            ]).prop_map(|s| s.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ], 0..60),
        cuts in proptest::collection::vec(1_usize..9, 0..60),
    ) {
        check(&pieces.concat(), &cuts);
    }

    #[test]
    fn any_change_to_a_real_message(
        mail in demo_mail(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..5, any::<u8>(), 0_usize..200), 1..8),
        cuts in proptest::collection::vec(1_usize..300, 0..60),
    ) {
        let mut mail = mail;
        for (index, kind, byte, length) in changes {
            let at = index.index(mail.len().max(1)).min(mail.len());
            let end = (at + length).min(mail.len());
            match kind {
                0 if at < mail.len() => mail[at] = byte,
                1 => drop(mail.drain(at..end)),
                2 => {
                    let piece = mail[at..end].to_vec();
                    mail.splice(at..at, piece);
                }
                3 => mail.truncate(mail.len() - length.min(mail.len())),
                _ => mail.insert(at, byte),
            }
        }
        check(&mail, &cuts);
    }
}

fn demo_files() -> Vec<(String, Vec<u8>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name.ends_with(".eml"))
        .collect();
    files.sort();
    files
}

#[test]
fn the_demo_mailbox() {
    let mut found = String::new();
    for (file, bytes) in demo_files() {
        let message = read_bytes(bytes.clone());
        assert_eq!(message.defects, [], "{file}");
        let number = &file[..2];
        for a in &message.attachments {
            let bytes = download(bytes.clone(), a.id.as_str()).unwrap();
            let sha256: String = Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let inline = if a.inline { " inline" } else { "" };
            let name = a.name.as_deref().unwrap_or("-");
            writeln!(found, "{number} {} {}{inline} {} {sha256} {name}", a.id, a.kind.as_str(), bytes.len()).unwrap();
        }
    }
    assert_eq!(found, DEMO);
}

/// Number of the file, part, kind, bytes, the start of their SHA-256, name.
const DEMO: &str = r"01 2 file 2744 e73a6dbd9b708fb0 Factuur-2026-0017.pdf
01 3 file 7439 4e64d0bec9c76d89 Factuur-2026-0017.xml
02 1.2 file inline 730 9969b81c7ed66ce8 logo.png
02 2 file 2635 bd2c8f2ad5f89e63 INV-2026-0114.pdf
03 1 file 7428 113e3aaf63fd8c71 Scan 2026-02-03 0815.tif
04 1 file 7635 e43b41701cd39536 DOC001.PDF
05 1 file 8024 c2ce00e5174d8da9 DOC001.PDF
06 2 item 4347 ddbb7b2d3a09756d Factuur 2026-0388.eml
07 2 file 443 0c0a22a1a02f9a53 Delivery report
07 3 item 726 a6f673325811891e Ontbrekend ordernummer op factuur T-2291.eml
10 2 file 2674 0c20f149dea5e89a Energienota Coöperatie Noordzee – maart 2026.pdf
11 2 file 2696 25ed12284eec1541 Factuur schoonmaak één kwartaal.pdf
12 2 file 2493 3d2a52dfcc8e3877 invoice.pdf
12 3 file 2537 4bc7b2d2b378d81b invoice.pdf
13 2 file 1780 a6bea34289a8105a Keuring bestelbus België.pdf
13 3 file 2562 6ea196c87eeb1401 C:\fakepath\factuur.pdf
14 2 file 2468 2818aa65b08c458a ../../export/2026-05/AFS-0042.pdf
14 3 file 1757 458838983ab0d889 CON.pdf
14 4 file 2497 5c1c18a3fef8c59d Invoice AFS-0043 for the preventive maintenance of the heating, ventilation and air conditioning installations at the locations Utrecht (head office), Breda (warehouse) and Zwolle (service centre), carried out in the spring of 2026 under framework agreement 2026-117, including replacement filters and travel expenses, final version.pdf
15 2 file 652 b5ba454242b061d1 uitnodiging.ics
16 2 file 2710 6ccebb89a1bfcb74 winmail.dat
";
