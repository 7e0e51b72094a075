//! Memory does not follow the size of an attachment. A program of its own, because what is measured is the process.
#![cfg(all(feature = "imap", target_os = "linux"))]

#[path = "support/dovecot.rs"]
mod dovecot;

use std::{io::Write as _, time::SystemTime};

use dovecot::{Dovecot, PASSWORD};
use futures::TryStreamExt as _;
use mail_account::{
    FolderSpec, MailAccount as _, Message, Query, Secret, SecretSource,
    provider::{Opening, imap::ImapConfig},
};

const LINES: usize = 2_631_579;

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_of_150_mb_takes_little_memory() {
    let server = Dovecot::start();
    let user = server.user();
    // Written piece by piece, so that the test itself does not hold it.
    let file = server.deliver_with(&user, "", SystemTime::now(), |file| {
        write!(file, "Message-ID: <big@example.com>\r\nSubject: Big\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\nContent-Type: application/pdf; name=big.pdf\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n")?;
        let line = format!("{}\r\n", "QUJD".repeat(19));
        let block = line.repeat(1_000);
        for _ in 0..LINES / 1_000 {
            file.write_all(block.as_bytes())?;
        }
        for _ in 0..LINES % 1_000 {
            file.write_all(line.as_bytes())?;
        }
        write!(file, "--b--\r\n")
    });
    assert!(file > 200_000_000);
    let mut config = ImapConfig::new("localhost", &user, SecretSource::Literal(Secret::new(PASSWORD)));
    config.port = Some(server.tls_port);
    config.ca_file = Some(server.ca_file.clone());
    let account = config.account(Opening::new("test"), None).unwrap();
    let inbox = account.resolve_folder(&"inbox".parse::<FolderSpec>().unwrap()).await.unwrap();
    let messages: Vec<Message> = account.fetch_messages(&inbox.id, Query::default()).try_collect().await.unwrap();
    let attachment = &messages[0].attachments[0];
    assert_eq!(attachment.name.as_deref(), Some("big.pdf"));
    let mut stream = account.download_attachment(&messages[0].id, &attachment.id).into_stream();
    let mut bytes = 0;
    while let Some(piece) = stream.try_next().await.unwrap() {
        bytes += piece.len();
    }
    assert_eq!(bytes, LINES * 57);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{bytes} bytes, peak {peak} kB");
    assert!(peak < 48 * 1024, "{peak} kB");
}
