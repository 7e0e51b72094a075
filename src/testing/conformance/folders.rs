//! The tree, specs, creating.

use std::collections::HashSet;

use super::room::{Room, done, refused, spec};
use crate::{Access, ErrorKind, FolderSpec, Query, Role};
use futures::StreamExt as _;

pub(super) async fn the_account_says_which_mailbox_it_is(room: &Room<'_>) {
    let info = room.account.mailbox();
    assert!(!info.account.is_empty() && !info.provider.is_empty(), "account and provider have names; got {info:?}");
    assert!(!info.name.is_empty() && info.name == info.name.trim(), "the name is trimmed; got {info:?}");
    let again = done(room.harness.open().await, "open the account again");
    assert_eq!(again.mailbox(), info, "the same account, opened again");
    assert!(room.account.capabilities().move_batch >= 1, "a batch has at least one message");
    let before = room.account.usage();
    done(room.account.list_folders().await, "list folders");
    assert!(room.account.usage().requests >= before.requests, "usage only grows");
}

pub(super) async fn the_tree_has_all_levels_with_their_paths(room: &Room<'_>) {
    let paths = [vec![], vec!["A"], vec!["A", "B"], vec!["A", "B", "C"], vec!["D"]];
    for path in &paths {
        done(room.account.create_folder(&room.spec(path)).await, "create a folder");
    }
    let tree = done(room.account.list_folders().await, "list folders");
    let ids: HashSet<_> = tree.iter().map(|folder| &folder.id).collect();
    assert_eq!(ids.len(), tree.len(), "every folder has an id of its own");
    for path in &paths {
        let full = room.path(path);
        let found: Vec<_> = tree.iter().filter(|folder| folder.segments == full).collect();
        assert_eq!(found.len(), 1, "`{}` is in the tree once", full.join("/"));
        assert!(!found[0].search && found[0].selectable, "a folder that was made holds messages: {:?}", found[0]);
        let parsed: FolderSpec = done(found[0].path().parse(), "parse the folder's own path");
        let resolved = done(room.account.resolve_folder(&parsed).await, "resolve the folder's own path");
        assert_eq!(resolved.id, found[0].id, "`{}` leads back to the folder", found[0].path());
    }
}

pub(super) async fn the_tree_has_one_inbox(room: &Room<'_>) {
    let tree = done(room.account.list_folders().await, "list folders");
    let inboxes: Vec<_> = tree.iter().filter(|folder| folder.role == Some(Role::Inbox)).collect();
    assert_eq!(inboxes.len(), 1, "one folder is the inbox; got {inboxes:?}");
    assert!(inboxes[0].selectable && !inboxes[0].search && !inboxes[0].hidden, "{:?}", inboxes[0]);
}

pub(super) async fn the_inbox_is_found_in_any_case(room: &Room<'_>) {
    let tree = done(room.account.list_folders().await, "list folders");
    let inbox = tree.iter().find(|folder| folder.role == Some(Role::Inbox)).expect("there is an inbox");
    for name in ["INBOX", "Inbox", "inbox", "InBoX", "role:inbox", &inbox.path(), &inbox.path().to_uppercase()] {
        let parsed: FolderSpec = done(name.parse(), "parse a name of the inbox");
        let found = done(room.account.resolve_folder(&parsed).await, "resolve a name of the inbox");
        assert_eq!(found.id, inbox.id, "`{name}` is the inbox");
        assert_eq!(found.role, Some(Role::Inbox), "`{name}` has its role");
    }
}

pub(super) async fn roles_find_what_the_tree_says(room: &Room<'_>) {
    let tree = done(room.account.list_folders().await, "list folders");
    for role in [Role::Inbox, Role::Archive, Role::Drafts, Role::Sent, Role::Trash, Role::Junk] {
        let found = room.account.resolve_folder(&FolderSpec::Role(role)).await;
        match tree.iter().find(|folder| folder.role == Some(role)) {
            Some(folder) => assert_eq!(done(found, "resolve a role").id, folder.id, "`role:{role}`"),
            None => {
                drop(refused(found, ErrorKind::NotFound, &format!("resolving `role:{role}`, which no folder has,")))
            }
        }
    }
}

pub(super) async fn paths_are_found_exactly_first_then_in_any_case(room: &Room<'_>) {
    let made = room.folder("Processed").await;
    for name in ["Processed", "processed", "PROCESSED"] {
        let found = done(room.account.resolve_folder(&room.spec(&[name])).await, "resolve a path");
        assert_eq!(found.id, made.id, "`{name}` is the only folder that could be meant");
    }
    // Where the service tells `processed` and `Processed` apart, both can be had.
    let lower = done(room.account.create_folder(&room.spec(&["processed"])).await, "create a folder");
    let upper = done(room.account.resolve_folder(&room.spec(&["Processed"])).await, "resolve a path");
    assert_eq!(upper.id, made.id, "the exact name wins");
    assert_eq!(lower.id, made.id, "creating what could be meant makes no second folder");
}

pub(super) async fn ids_find_their_folder_again(room: &Room<'_>) {
    let made = room.folder("By id").await;
    let again = done(room.harness.open().await, "open the account again");
    let text = format!("id:{}", made.id);
    let parsed: FolderSpec = done(text.parse(), "parse an id");
    let found = done(again.resolve_folder(&parsed).await, "resolve an id");
    assert_eq!((found.id, found.segments), (made.id, made.segments));
    let unknown = again.resolve_folder(&FolderSpec::Id(crate::FolderId::new("surely no such id"))).await;
    refused(unknown, ErrorKind::NotFound, "resolving an unknown id");
}

pub(super) async fn names_keep_their_characters(room: &Room<'_>) {
    for name in ["Geëxporteerd 2026", "R&D & meer", "a~b", "50% korting", "日本語", "[oud] (1)"] {
        let made = room.folder(name).await;
        assert_eq!(made.name(), name, "as it was asked for");
        let tree = done(room.account.list_folders().await, "list folders");
        let listed = tree.iter().find(|folder| folder.id == made.id).expect("it is in the tree");
        assert_eq!(listed.name(), name, "as the tree has it");
        let found = done(room.account.resolve_folder(&room.spec(&[name])).await, "resolve it");
        assert_eq!(found.id, made.id);
    }
}

pub(super) async fn a_separator_in_a_name_makes_no_level(room: &Room<'_>) {
    // Not every service can hold such a name. One that cannot says so; it never makes something else of it.
    for name in ["in/out", "v1.0", r"back\slash"] {
        let asked = room.spec(&[name]);
        let parsed: FolderSpec = done(asked.to_string().parse(), "parse an escaped path");
        assert_eq!(parsed, asked, "the escaped form means the same");
        match room.account.create_folder(&asked).await {
            Ok(made) => {
                assert_eq!(made.segments, room.path(&[name]), "`{name}` is one name");
                let found = done(room.account.resolve_folder(&asked).await, "resolve it");
                assert_eq!(found.id, made.id);
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidConfig),
                "a name that cannot be had is `unsupported` or `invalid_config`; got {}",
                error.chain()
            ),
        }
        let tree = done(room.account.list_folders().await, "list folders");
        let base = room.path(&[]);
        let below = tree.iter().filter(|f| f.segments.len() > base.len() + 1 && f.segments.starts_with(&base));
        assert_eq!(below.count(), 0, "no level was made of `{name}`");
    }
}

pub(super) async fn a_missing_folder_is_told_with_the_nearest_names(room: &Room<'_>) {
    let near = room.folder("Verwerkt").await;
    let error = room.account.resolve_folder(&room.spec(&["Verwerk"])).await;
    let error = refused(error, ErrorKind::NotFound, "resolving a misspelt folder");
    let text = error.to_string();
    assert!(text.contains(&near.path()), "the error names `{}`; got: {text}", near.path());
    let info = room.account.mailbox();
    assert_eq!(error.provider(), Some(info.provider.as_str()), "the error names the provider");
    assert_eq!(error.account(), Some(info.account.as_str()), "the error names the account");
    assert_eq!(error.operation(), Some("resolve_folder"), "the error names the operation");
}

pub(super) async fn creating_twice_gives_the_same_folder(room: &Room<'_>) {
    let first = room.folder("Twice").await;
    let again = done(room.harness.open().await, "open the account again");
    let second = done(again.create_folder(&room.spec(&["Twice"])).await, "create a folder that exists");
    assert_eq!((&second.id, &second.segments), (&first.id, &first.segments));
    let tree = done(room.account.list_folders().await, "list folders");
    assert_eq!(tree.iter().filter(|folder| folder.segments == first.segments).count(), 1);
    let inbox = done(room.account.create_folder(&FolderSpec::Role(Role::Inbox)).await, "create the inbox");
    assert_eq!(inbox.role, Some(Role::Inbox), "the inbox exists always");
}

pub(super) async fn creating_makes_what_is_missing_above(room: &Room<'_>) {
    let deep =
        done(room.account.create_folder(&room.spec(&["X", "Y", "Z"])).await, "create a folder three levels down");
    assert_eq!(deep.segments, room.path(&["X", "Y", "Z"]));
    for path in [&["X"][..], &["X", "Y"]] {
        let found = done(room.account.resolve_folder(&room.spec(path)).await, "resolve what was made above");
        assert_eq!(found.segments, room.path(path));
    }
}

pub(super) async fn creating_below_the_inbox_works(room: &Room<'_>) {
    let name = room.path(&[]).pop().expect("a check has a folder of its own");
    let asked = FolderSpec::Path(vec!["inbox".to_owned(), name.clone()]);
    let made = room.account.create_folder(&asked).await;
    let tree = room.account.list_folders().await;
    // Cleaned up before anything can fail: it does not lie in the check's own folder.
    let deleted = match &made {
        Ok(made) => room.harness.delete_folder(&spec(made)).await,
        Err(_) => Ok(()),
    };
    let made = done(made, "create a folder below the inbox");
    done(deleted, "delete it again");
    let tree = done(tree, "list folders");
    let inbox = tree.iter().find(|folder| folder.role == Some(Role::Inbox)).expect("there is an inbox");
    assert_eq!(made.segments, [inbox.segments.clone(), vec![name]].concat(), "it stands below the inbox");
    assert!(tree.iter().any(|folder| folder.id == made.id), "it is in the tree");
}

pub(super) async fn a_new_folder_can_be_written_to(room: &Room<'_>) {
    let made = room.folder("Mine").await;
    let access = done(room.account.folder_access(&made.id).await, "ask for access");
    assert_ne!(access, Access::ReadOnly, "whoever made a folder can write to it");
    let gone = room.folder("Gone").await;
    done(room.harness.delete_folder(&spec(&gone)).await, "delete a folder");
    refused(room.account.folder_access(&gone.id).await, ErrorKind::NotFound, "asking for access to a deleted folder");
}

pub(super) async fn a_deleted_folder_is_not_found(room: &Room<'_>) {
    let gone = room.folder("Gone").await;
    done(room.harness.delete_folder(&spec(&gone)).await, "delete a folder");
    refused(room.account.resolve_folder(&spec(&gone)).await, ErrorKind::NotFound, "resolving a deleted folder");
    // Never an empty listing: nobody looked.
    let listed: Vec<_> = room.account.fetch_messages(&gone.id, Query::default()).collect().await;
    assert_eq!(listed.len(), 1, "one error and nothing else; got {} results", listed.len());
    refused(listed.into_iter().next().expect("one"), ErrorKind::NotFound, "listing a deleted folder");
}
