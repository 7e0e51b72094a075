//! What a path of Graph names, and what it takes to be allowed there.

use super::log::Route;
use super::odata::decode;
use super::reply::Refusal;

/// What a path names.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Me,
    Users,
    User(String),
    MailboxSettings(String, bool),
    Folders(String),
    Folder(String, String),
    Children(String, String),
    /// Folder, if one was named.
    Messages(String, Option<String>),
    Delta(String, String),
    Message(String, Option<String>, String),
    MessageValue(String, Option<String>, String),
    MessageAction(String, Option<String>, String, Action),
    Attachments(String, Option<String>, String),
    Attachment(String, Option<String>, String, String),
    AttachmentValue(String, Option<String>, String, String),
    Translate(String),
    /// Exists in Graph, but not here.
    NotModelled,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    Move,
    Copy,
    PermanentDelete,
}

/// Splits a path into decoded segments, with `name('key')` as two.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    for raw in path.split('/').skip(1) {
        let segment = decode(raw, false)?;
        if segment.contains('/') {
            // An encoded slash is taken for a slash.
            let name = segment.rsplit('/').next().unwrap_or_default().to_owned();
            return Err(no_segment(&name));
        }
        match segment.split_once("('") {
            Some((name, rest)) if !name.is_empty() => {
                let key =
                    rest.strip_suffix("')").ok_or_else(|| Refusal::bad_request("The request URI is malformed."))?;
                found.push(name.to_owned());
                found.push(key.replace("''", "'"));
            }
            _ => found.push(segment),
        }
    }
    if found.last().is_some_and(String::is_empty) {
        found.pop();
    }
    Ok(found)
}

pub(super) fn no_segment(name: &str) -> Refusal {
    Refusal::new(400, "RequestBroker--ParseUri", format!("Resource not found for the segment '{name}'."))
}

pub(super) fn operation(path: &str) -> Result<Op, Refusal> {
    const ELSEWHERE: [&str; 12] = [
        "calendar",
        "calendars",
        "calendarview",
        "contacts",
        "contactfolders",
        "events",
        "findmeetingtimes",
        "getmailtips",
        "inferenceclassification",
        "outlook",
        "photo",
        "sendmail",
    ];
    let segments = segments(path)?;
    let words: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let key = |at: usize| segments[at].clone();
    // The part below `messages`, wherever that stands.
    let below = |at: usize, user: String, folder: Option<String>| -> Result<Op, Refusal> {
        Ok(match &words[at..] {
            [] => Op::Messages(user, folder),
            ["delta" | "delta()" | "microsoft.graph.delta()"] => match folder {
                Some(folder) => Op::Delta(user, folder),
                None => {
                    return Err(Refusal::bad_request(
                        "Change tracking is not supported against 'microsoft.graph.message'.",
                    ));
                }
            },
            [_] => Op::Message(user, folder, key(at)),
            [_, "$value"] => Op::MessageValue(user, folder, key(at)),
            [_, "move" | "microsoft.graph.move"] => Op::MessageAction(user, folder, key(at), Action::Move),
            [_, "copy" | "microsoft.graph.copy"] => Op::MessageAction(user, folder, key(at), Action::Copy),
            [_, "permanentdelete"] => Op::MessageAction(user, folder, key(at), Action::PermanentDelete),
            [_, "attachments"] => Op::Attachments(user, folder, key(at)),
            [_, "attachments", "createuploadsession"] => Op::NotModelled,
            [_, "attachments", _] => Op::Attachment(user, folder, key(at), key(at + 2)),
            [_, "attachments", _, "$value"] => Op::AttachmentValue(user, folder, key(at), key(at + 2)),
            [
                _,
                "send" | "reply" | "replyall" | "forward" | "createreply" | "createreplyall" | "createforward"
                | "extensions",
                ..,
            ] => Op::NotModelled,
            [_, "attachments", _, other, ..] | [_, other, ..] => return Err(no_segment(other)),
        })
    };
    Ok(match words.as_slice() {
        // With more behind it only from an application's token: a person's means their own mailbox.
        ["me", ..] => Op::Me,
        ["users"] => Op::Users,
        ["users", _] => Op::User(key(1)),
        ["users", _, "mailboxsettings"] => Op::MailboxSettings(key(1), false),
        ["users", _, "mailboxsettings", "userpurpose"] => Op::MailboxSettings(key(1), true),
        ["users", _, "mailboxsettings", ..] => Op::NotModelled,
        ["users", _, "mailfolders"] => Op::Folders(key(1)),
        ["users", _, "mailfolders", "delta" | "delta()"] => Op::NotModelled,
        ["users", _, "mailfolders", _] => Op::Folder(key(1), key(3)),
        ["users", _, "mailfolders", _, "childfolders"] => Op::Children(key(1), key(3)),
        // A child may be addressed below its parent, to any depth.
        ["users", _, "mailfolders", _, "childfolders", rest @ ..] => {
            let mut at = 5;
            let mut rest = rest;
            loop {
                match rest {
                    [_] => break Op::Folder(key(1), key(at)),
                    [_, "childfolders"] => break Op::Children(key(1), key(at)),
                    [_, "childfolders", tail @ ..] => {
                        rest = tail;
                        at += 2;
                    }
                    [_, "messages", ..] => break below(at + 2, key(1), Some(key(at)))?,
                    [_, other, ..] => return Err(no_segment(other)),
                    [] => return Err(no_segment("childFolders")),
                }
            }
        }
        ["users", _, "mailfolders", _, "messages", ..] => below(5, key(1), Some(key(3)))?,
        ["users", _, "mailfolders", _, "messagerules" | "move" | "copy", ..] => Op::NotModelled,
        ["users", _, "messages", ..] => below(3, key(1), None)?,
        ["users", _, "translateexchangeids"] => Op::Translate(key(1)),
        ["users", _, other, ..] if ELSEWHERE.contains(other) => Op::NotModelled,
        ["subscriptions" | "groups" | "organization" | "applications", ..] => Op::NotModelled,
        ["$batch", ..] => {
            return Err(Refusal::bad_request("A batch request may not contain another batch."));
        }
        other => return Err(no_segment(other.last().copied().unwrap_or_default())),
    })
}

impl Op {
    pub(super) fn route(&self, method: &str) -> Route {
        match (self, method) {
            (Op::Users, _) => Route::ListUsers,
            (Op::User(_), _) => Route::GetUser,
            (Op::MailboxSettings(..), _) => Route::MailboxSettings,
            (Op::Folders(_) | Op::Children(..), "POST") => Route::CreateFolder,
            (Op::Folders(_), _) => Route::ListFolders,
            (Op::Children(..), _) => Route::ListChildFolders,
            (Op::Folder(..), _) => Route::GetFolder,
            (Op::Messages(..), _) => Route::ListMessages,
            (Op::Delta(..), _) => Route::Delta,
            (Op::Message(..), "PATCH") => Route::Update,
            (Op::Message(..), "DELETE") => Route::Delete,
            (Op::Message(..), _) => Route::GetMessage,
            (Op::MessageValue(..), _) => Route::MessageValue,
            (Op::MessageAction(.., Action::Move), _) => Route::Move,
            (Op::MessageAction(.., Action::Copy), _) => Route::Copy,
            (Op::MessageAction(.., Action::PermanentDelete), _) => Route::Delete,
            (Op::Attachments(..), _) => Route::ListAttachments,
            (Op::Attachment(..), _) => Route::GetAttachment,
            (Op::AttachmentValue(..), _) => Route::AttachmentValue,
            (Op::Translate(_), _) => Route::TranslateIds,
            (Op::Me, _) => Route::Me,
            (Op::NotModelled, _) => Route::Other,
        }
    }

    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Op::Me | Op::Users | Op::NotModelled => None,
            Op::User(user)
            | Op::MailboxSettings(user, _)
            | Op::Folders(user)
            | Op::Folder(user, _)
            | Op::Children(user, _)
            | Op::Messages(user, _)
            | Op::Delta(user, _)
            | Op::Message(user, ..)
            | Op::MessageValue(user, ..)
            | Op::MessageAction(user, ..)
            | Op::Attachments(user, ..)
            | Op::Attachment(user, ..)
            | Op::AttachmentValue(user, ..)
            | Op::Translate(user) => Some(user),
        }
    }

    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Op::Message(.., id)
            | Op::MessageValue(.., id)
            | Op::MessageAction(.., id, _)
            | Op::Attachments(.., id)
            | Op::Attachment(_, _, id, _)
            | Op::AttachmentValue(_, _, id, _) => Some(id),
            _ => None,
        }
    }

    /// Any of these is enough ("Permissions" of each page of the reference).
    pub(super) fn permissions(&self, method: &str) -> &'static [&'static str] {
        const BASIC: &[&str] = &["Mail.ReadBasic", "Mail.ReadBasic.All", "Mail.Read", "Mail.ReadWrite"];
        const READ: &[&str] = &["Mail.Read", "Mail.ReadWrite"];
        const WRITE: &[&str] = &["Mail.ReadWrite"];
        const DIRECTORY: &[&str] = &["User.Read.All", "User.ReadWrite.All", "Directory.Read.All"];
        const SETTINGS: &[&str] = &["MailboxSettings.Read", "MailboxSettings.ReadWrite"];
        match self {
            Op::Users | Op::User(_) | Op::Translate(_) => DIRECTORY,
            Op::MailboxSettings(..) => SETTINGS,
            Op::MessageAction(..) => WRITE,
            Op::MessageValue(..) | Op::Attachments(..) | Op::Attachment(..) | Op::AttachmentValue(..) => READ,
            _ if method != "GET" => WRITE,
            _ => BASIC,
        }
    }

    /// The same for a person's token in the directory; `own` is the person's own entry.
    pub(super) fn delegated_permissions(&self, own: bool) -> &'static [&'static str] {
        const OWN: &[&str] = &[
            "User.Read",
            "User.ReadWrite",
            "User.ReadBasic.All",
            "User.Read.All",
            "User.ReadWrite.All",
            "Directory.Read.All",
        ];
        const OTHERS: &[&str] = &["User.ReadBasic.All", "User.Read.All", "User.ReadWrite.All", "Directory.Read.All"];
        match self {
            Op::Users => OTHERS,
            Op::User(_) if !own => OTHERS,
            _ => OWN,
        }
    }

    pub(super) fn methods(&self) -> &'static [&'static str] {
        match self {
            Op::Folders(_) | Op::Children(..) => &["GET", "POST"],
            Op::Message(..) => &["GET", "PATCH", "DELETE"],
            Op::MessageAction(..) | Op::Translate(_) => &["POST"],
            _ => &["GET"],
        }
    }
}
