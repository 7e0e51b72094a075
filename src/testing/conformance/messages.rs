//! What is known of a message, handles, flags.

use futures::TryStreamExt as _;
use jiff::SignedDuration;

use super::room::{Room, START, done, numbered, refused, spec};
use crate::{
    Address, AttachmentId, Defect, ErrorKind, MessageId, MoveOutcome, Query,
    testing::{conformance::Seen, mail::mail},
};

pub(super) async fn the_envelope_is_read(room: &Room<'_>) {
    let sent = mail()
        .with_subject("Factuur – juni: 3 × koffie à € 2,50, geëxporteerd uit de boekhouding van Café De Hoek")
        .with_from(Address::new("bar@dehoek.example").with_name("Café De Hoek"))
        .with_to([Address::new("facturen@contoso.nl"), Address::new("kopie@contoso.nl").with_name("Kopie, Kees")])
        .with_cc([Address::new("baas@contoso.nl").with_name("De Baas")])
        .with_reply_to([Address::new("antwoord@dehoek.example")])
        .with_header("In-Reply-To", "<vraag-2@contoso.nl>")
        .with_header("References", "<vraag-1@contoso.nl>\r\n <vraag-2@contoso.nl>");
    let message = room.given(&sent, Query::default()).await;
    room.assert_same(&message, &sent).await;
    assert_eq!(message.to[1].name.as_deref(), Some("Kopie, Kees"), "a name with a comma is one name");
    assert_eq!(message.cc.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(), ["baas@contoso.nl"]);
    assert_eq!(message.reply_to.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(), ["antwoord@dehoek.example"]);
    assert_eq!(message.in_reply_to.as_deref(), Some("<vraag-2@contoso.nl>"));
    assert_eq!(message.references, ["<vraag-1@contoso.nl>", "<vraag-2@contoso.nl>"]);
    assert!(message.defects().is_empty(), "nothing is wrong with it; got {:?}", message.defects());
    assert!(!message.is_automatic && !message.is_bounce && !message.is_own, "a person wrote it, and not the mailbox");
    assert!(message.attachments.is_empty(), "its text is no attachment; got {:?}", message.attachments);
}

pub(super) async fn the_received_time_is_the_mailboxes(room: &Room<'_>) {
    let received = START + SignedDuration::from_hours(50);
    let message = room.given(&mail().with_received(received), Query::default()).await;
    assert_eq!(message.received.as_second(), received.as_second());
    assert_eq!(message.sent, Some(START), "the header's date is another time");
}

pub(super) async fn headers_come_when_asked_for(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let sent = mail()
        .with_header("X-Invoice-Number", "2026-0042")
        .with_header("Received", "from a.example by b.example; Sat, 31 Jan 2026 12:00:00 +0000")
        .with_header("Received", "from c.example by a.example; Sat, 31 Jan 2026 11:59:00 +0000");
    room.deliver(&folder, &sent).await;
    assert!(room.only(&folder, Query::default()).await.headers.is_empty(), "none were asked for");
    let asked = Query::default().with_headers(["x-invoice-number", "Received", "X-Absent"]);
    let message = room.only(&folder, asked).await;
    assert_eq!(message.header("X-Invoice-Number"), Some("2026-0042"), "in any case; got {:?}", message.headers);
    assert_eq!(message.header("X-Absent"), None);
    let hops: Vec<_> = message.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("received")).collect();
    assert!(hops.len() >= 2, "what stands there twice comes twice; got {hops:?}");
    let at = |part: &str| hops.iter().position(|(_, value)| value.contains(part)).expect("it is among them");
    assert!(at("from a.example") < at("from c.example"), "in their order; got {hops:?}");
    let others = message.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("subject"));
    assert_eq!(others, None, "only what was asked for");
}

pub(super) async fn text_comes_when_asked_for(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let sent = mail().with_text("Totaal: € 12,50\r\n").with_html("<p>Totaal: <b>€ 12,50</b></p>\r\n");
    room.deliver(&folder, &sent).await;
    let message = room.only(&folder, Query::default()).await;
    assert_eq!((message.text, message.html), (None, None), "none was asked for");
    let message = room.only(&folder, Query::default().with_text(true)).await;
    let (text, html) = (message.text.unwrap_or_default(), message.html.unwrap_or_default());
    // A service may keep only one of the two.
    assert!(!(text.is_empty() && html.is_empty()), "there is a text");
    for body in [text, html].iter().filter(|body| !body.is_empty()) {
        assert!(body.contains("€ 12,50") || body.contains("&euro; 12,50"), "decoded; got {body:?}");
    }
}

pub(super) async fn automatic_mail_and_bounces_are_told(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let report = "Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; weg@contoso.nl\r\nAction: failed\r\n\
                  Status: 5.1.1\r\n";
    let bounce = mail()
        .with_subject("Undelivered Mail Returned to Sender")
        .with_from(Address::new("MAILER-DAEMON@mx.example"))
        .with_header("Auto-Submitted", "auto-replied")
        .with_header("Return-Path", "<>")
        .with_header("X-Failed-Recipients", "weg@contoso.nl")
        .with_file(None, "message/delivery-status", report);
    let away = numbered(1).with_subject("Afwezig").with_header("Auto-Submitted", "auto-replied");
    room.deliver(&folder, &bounce).await;
    room.deliver(&folder, &away).await;
    let all = room.list(&folder, Query::default()).await;
    let of = |id: Option<String>| all.iter().find(|m| m.internet_message_id == id).expect("it is listed");
    let (bounce, away) = (of(bounce.message_id()), of(away.message_id()));
    assert!(bounce.is_bounce && bounce.is_automatic, "a bounce is automatic as well");
    assert!(away.is_automatic && !away.is_bounce, "an absence notice is no bounce");
}

pub(super) async fn a_message_without_id_and_date_is_given(room: &Room<'_>) {
    let sent = mail().with_message_id(None).with_date(None).with_attachment("scan.pdf", "scan");
    let message = room.given(&sent, Query::default()).await;
    assert_eq!(message.subject.as_deref(), sent.subject());
    assert_eq!(room.files(&message).await.len(), 1);
    let again = done(room.account.fetch_message(&message.id).await, "fetch it by its handle");
    assert_eq!(again.internet_message_id, message.internet_message_id, "the same answer each time");
    assert_eq!(again.sent, message.sent);
}

pub(super) async fn a_message_without_message_id_has_none(room: &Room<'_>) {
    let message = room.given(&mail().with_message_id(None), Query::default()).await;
    assert_eq!(message.internet_message_id, None);
}

pub(super) async fn garbage_is_a_message_too(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let garbage: [&'static [u8]; 3] = [
        b"\xff\xfe\xfd\r\n\r\n\xff",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n=!!=",
        b"no header at all",
    ];
    for (n, raw) in garbage.iter().enumerate() {
        let received = START + SignedDuration::from_secs(n as i64);
        done(room.harness.deliver(&spec(&folder), (*raw).into(), received).await, "deliver garbage");
    }
    room.deliver(&folder, &numbered(9)).await;
    let messages = room.list(&folder, Query::default()).await;
    assert_eq!(messages.len(), 4, "garbage hides no message, itself included");
    for message in &messages {
        let raw = room.download(&message.id, &AttachmentId::raw()).await;
        assert!(!raw.is_empty());
        for attachment in &message.attachments {
            // Broken content is decoded as far as it goes, or refused; it never panics or hangs.
            let _ = room.account.download_attachment(&message.id, &attachment.id).bytes(1 << 20).await;
        }
    }
}

pub(super) async fn an_unreadable_message_is_given_with_a_defect(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver(&folder, &numbered(0)).await;
    let broken = numbered(1);
    let delivered = room.harness.deliver_unreadable(&spec(&folder), broken.build(), broken.received()).await;
    done(delivered, "deliver an unreadable message");
    room.deliver(&folder, &numbered(2)).await;
    let messages = room.list(&folder, Query::default()).await;
    assert_eq!(messages.len(), 3, "one unreadable message ends no listing");
    let bad: Vec<_> = messages.iter().filter(|m| m.defects().contains(&Defect::Unreadable)).collect();
    assert_eq!(bad.len(), 1, "the one is told by its defect");
    let raw = room.download(&bad[0].id, &AttachmentId::raw()).await;
    assert!(!raw.is_empty(), "its bytes can be had");
    let target = room.folder("Target").await;
    room.move_one(&bad[0].id, &target).await;
    assert_eq!(room.list(&folder, Query::default()).await.len(), 2, "it can be moved");
}

pub(super) async fn a_handle_fetches_its_message(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let sent = numbered(0).with_attachment("a.pdf", "a");
    room.deliver(&folder, &sent).await;
    room.deliver(&folder, &numbered(1)).await;
    let listed = room.list(&folder, Query::default()).await;
    let listed = listed.iter().find(|m| m.internet_message_id == sent.message_id()).expect("it is listed");
    let fetched = done(room.account.fetch_message(&listed.id).await, "fetch a message by its handle");
    assert_eq!(fetched.id, listed.id);
    assert_eq!(fetched.folder, folder.id, "the folder it is in");
    assert_eq!(listed.folder, folder.id, "the folder it was listed in");
    assert_eq!(fetched.received, listed.received);
    assert_eq!(fetched.attachments.len(), listed.attachments.len());
    room.assert_same(&fetched, &sent).await;
}

pub(super) async fn handles_survive_reopening(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver_some(&folder, 3).await;
    let before = room.list(&folder, Query::default()).await;
    let again = done(room.harness.open().await, "open the account again");
    for message in &before {
        let fetched = done(again.fetch_message(&message.id).await, "fetch a message by a handle from before");
        assert_eq!(fetched.internet_message_id, message.internet_message_id);
    }
    let after: Vec<_> =
        done(again.fetch_messages(&folder.id, Query::default()).try_collect::<Vec<_>>().await, "list again");
    let handles = |all: &[crate::Message]| all.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
    assert_eq!(handles(&after), handles(&before));
}

pub(super) async fn handles_survive_what_happens_to_others(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let all = room.deliver_some(&folder, 4).await;
    let listed = room.list(&folder, Query::default()).await;
    let of =
        |id: &String| listed.iter().find(|m| m.internet_message_id.as_ref() == Some(id)).expect("listed").id.clone();
    done(room.harness.delete(&spec(&folder), &all[0]).await, "delete a message as another client");
    done(room.harness.mark(&spec(&folder), &all[3], true).await, "mark a message as another client");
    room.move_one(&of(&all[1]), &target).await;
    room.deliver(&folder, &numbered(99)).await;
    for id in [&all[2], &all[3]] {
        let fetched = done(room.account.fetch_message(&of(id)).await, "fetch a message that nobody moved");
        assert_eq!(fetched.internet_message_id.as_ref(), Some(id), "the handle still means the same message");
        let raw = room.download(&of(id), &AttachmentId::raw()).await;
        assert!(!raw.is_empty());
    }
    refused(room.account.fetch_message(&of(&all[0])).await, ErrorKind::NotFound, "fetching a deleted message");
}

pub(super) async fn an_unknown_handle_is_not_found(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let message = room.given(&mail().with_attachment("a.pdf", "a"), Query::default()).await;
    // One that never was, one that is nearly right, and one of a message that is gone from the mailbox.
    let unknown = [MessageId::new("no such handle"), MessageId::new(format!("{}0", message.id)), MessageId::new("")];
    for id in &unknown {
        refused(room.account.fetch_message(id).await, ErrorKind::NotFound, "fetching an unknown message");
        for attachment in [AttachmentId::raw(), message.attachments[0].id.clone()] {
            let content = room.account.download_attachment(id, &attachment);
            refused(content.bytes(1 << 20).await, ErrorKind::NotFound, "a download from an unknown message");
        }
        let marked = room.account.mark_read(std::slice::from_ref(id), true).await;
        assert_eq!(marked.len(), 1);
        refused(marked.into_iter().next().expect("one"), ErrorKind::NotFound, "marking an unknown message");
        match room.account.move_to_processed(std::slice::from_ref(id), &folder.id).await.remove(0) {
            Ok(MoveOutcome::Gone) => {}
            Ok(other) => panic!("an unknown message was moved: {other:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain()),
        }
    }
    done(room.account.fetch_message(&message.id).await, "fetch the message that is there");
}

pub(super) async fn marking_as_read_works_both_ways(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver(&folder, &mail()).await;
    let id = room.only(&folder, Query::default()).await.id;
    for read in [true, true, false, false, true] {
        let answers = room.account.mark_read(std::slice::from_ref(&id), read).await;
        answers.into_iter().for_each(|answer| done(answer, "mark a message"));
        assert_eq!(room.only(&folder, Query::default()).await.is_read, read, "as listed");
        assert_eq!(done(room.account.fetch_message(&id).await, "fetch it").is_read, read, "as fetched");
    }
}

pub(super) async fn marking_is_seen_by_other_clients(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let sent = mail();
    room.deliver(&folder, &sent).await;
    let id = room.only(&folder, Query::default()).await.id;
    for read in [true, false] {
        let answers = room.account.mark_read(std::slice::from_ref(&id), read).await;
        answers.into_iter().for_each(|answer| done(answer, "mark a message"));
        let seen = done(room.harness.look(&spec(&folder)).await, "look as another client");
        assert_eq!(seen, [Seen::new(sent.message_id(), read)]);
    }
}

pub(super) async fn marking_answers_for_each_message(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver_some(&folder, 4).await;
    let ids: Vec<_> = room.list(&folder, Query::default()).await.into_iter().map(|m| m.id).collect();
    let asked = [ids[0].clone(), MessageId::new("no such handle"), ids[2].clone()];
    let answers = room.account.mark_read(&asked, true).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "one each, in their order");
    let read: Vec<_> = room.list(&folder, Query::default()).await.iter().map(|m| m.is_read).collect();
    assert_eq!(read, [true, false, true, false]);
    assert!(room.account.mark_read(&[], true).await.is_empty(), "nothing asked, nothing answered");
}

pub(super) async fn flags_of_other_clients_are_seen(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let all = room.deliver_some(&folder, 2).await;
    let before: Vec<_> = room.list(&folder, Query::default()).await.into_iter().map(|m| m.id).collect();
    done(room.harness.mark(&spec(&folder), &all[1], true).await, "mark a message as another client");
    let after = room.list(&folder, Query::default()).await;
    assert_eq!(after.iter().map(|m| m.id.clone()).collect::<Vec<_>>(), before, "a flag changes no handle");
    let read: Vec<_> = after.iter().filter(|m| m.is_read).filter_map(|m| m.internet_message_id.as_ref()).collect();
    assert_eq!(read, [&all[1]]);
}
