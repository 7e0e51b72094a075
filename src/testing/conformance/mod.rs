//! What every provider does alike: one list of checks, each a line of the contract of
//! [`MailAccount`] or of the way folders are named.
//!
//! A provider, of this crate or of another, writes a [`Harness`] and walks [`checks`]:
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use bytes::Bytes;
//! use jiff::Timestamp;
//! use mail_account::{
//!     FolderSpec, MailAccount, Result,
//!     provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions},
//!     testing::conformance::{Harness, Need, checks},
//! };
//!
//! struct Memory(MemoryMailbox);
//!
//! #[async_trait]
//! impl Harness for Memory {
//!     async fn open(&self) -> Result<Arc<dyn MailAccount>> {
//!         Ok(Arc::new(MemoryAccount::open("check", &self.0, MemoryOptions::default())))
//!     }
//!
//!     async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
//!         self.0.deliver(&folder.to_string(), raw, received).map(drop)
//!     }
//!
//!     async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
//!         self.0.delete_folder(&folder.to_string())
//!     }
//!
//!     // Everything else has an answer that says "cannot do this".
//!     fn lacks(&self, need: Need) -> Option<String> {
//!         matches!(need, Need::OtherClient | Need::Unreadable | Need::Links).then(|| "not written yet".to_owned())
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let harness = Memory(MemoryMailbox::new("facturen@contoso.nl"));
//! let check = checks().iter().find(|check| check.name() == "move_returns_a_usable_id").expect("in the list");
//! assert_eq!(check.missing(&harness), None);
//! check.run(&harness).await?;
//! # Ok::<(), String>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each check works in a folder of its own with a fresh name and deletes it at the end, so that the list can also run
//! on a live mailbox. What it finds in messages is compared in terms that survive a service which renders messages
//! anew: Message-ID, subject, addresses, sent second, file names, and hashes of the files with CRLF as LF.
//!
//! | file | checks of |
//! |---|---|
//! | `folders.rs` | the tree, specs, creating |
//! | `listing.rs` | order, the fixed set, filters, skip |
//! | `messages.rs` | what is known of a message, handles, flags |
//! | `attachments.rs` | names, kinds, bytes, raw messages |
//! | `moves.rs` | what becomes of moved messages |
//! | `overlap.rs` | calls that run while others are open |
//! | `room.rs` | what the checks share |

mod attachments;
mod folders;
mod listing;
mod messages;
mod moves;
mod overlap;
mod room;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;

use crate::{Error, ErrorKind, FolderSpec, MailAccount, Result};
use room::Room;

/// What a check needs beyond opening the account and delivering a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// [`Harness::look`] and its neighbours: a second, independent view of the mailbox.
    OtherClient,
    /// [`Harness::deliver_unreadable`].
    Unreadable,
    /// [`Harness::deliver_link`].
    Links,
    /// A message keeps the received time that [`Harness::deliver`] was given.
    ReceivedTime,
    /// What arrives is kept byte for byte; services that render messages anew do not.
    ExactBytes,
    /// A message without `Message-ID` stays one; some services make one up.
    MissingMessageId,
    /// Delivering hundreds of messages is affordable.
    ManyMessages,
}

/// A message as another client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Its `Message-ID`, with angle brackets.
    pub internet_message_id: Option<String>,
    /// Whether it is marked as read.
    pub read: bool,
}

impl Seen {
    /// With these values.
    #[must_use]
    pub fn new(internet_message_id: Option<String>, read: bool) -> Self {
        Self { internet_message_id, read }
    }
}

/// What a check does to a mailbox from outside. Folders are named as in a configuration, messages by their
/// `Message-ID`, which is unique within a check's folder.
///
/// The methods with a body are needed only for what [`lacks`](Self::lacks) does not rule out.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Opens the account, each time as a new object under the same name on the same mailbox.
    async fn open(&self) -> Result<Arc<dyn MailAccount>>;

    /// Delivers a message, unread, to a folder that exists.
    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()>;

    /// Deletes a folder with all that is in it and below it. Not there: nothing to do, or an error, as you like.
    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()>;

    /// Why checks with this need cannot be made; `None` when they can.
    fn lacks(&self, need: Need) -> Option<String>;

    /// The folder below which checks make theirs; by default at the top.
    fn parent(&self) -> Option<FolderSpec> {
        None
    }

    /// What another client sees in a folder.
    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let _ = folder;
        Err(not_written("look"))
    }

    /// Another client deletes a message for good.
    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        let _ = (folder, internet_message_id);
        Err(not_written("delete"))
    }

    /// Another client moves a message.
    async fn relocate(&self, folder: &FolderSpec, internet_message_id: &str, to: &FolderSpec) -> Result<()> {
        let _ = (folder, internet_message_id, to);
        Err(not_written("relocate"))
    }

    /// Another client marks a message as read or unread.
    async fn mark(&self, folder: &FolderSpec, internet_message_id: &str, read: bool) -> Result<()> {
        let _ = (folder, internet_message_id, read);
        Err(not_written("mark"))
    }

    /// Delivers a message that the service lists and cannot give the content of.
    async fn deliver_unreadable(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        let _ = (folder, raw, received);
        Err(not_written("deliver_unreadable"))
    }

    /// Delivers a message with a link to a file in a cloud, of this name and address.
    async fn deliver_link(&self, folder: &FolderSpec, raw: Bytes, name: &str, url: &str) -> Result<()> {
        let _ = (folder, raw, name, url);
        Err(not_written("deliver_link"))
    }
}

fn not_written(method: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the harness has no `{method}`; write it, or name the need in `Harness::lacks`"),
    )
}

/// One behaviour that every provider shows.
pub struct Check {
    name: &'static str,
    needs: &'static [Need],
    run: for<'a> fn(&'a Room<'a>) -> BoxFuture<'a, ()>,
}

impl Check {
    /// What it checks, as a name for a test.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it needs.
    #[must_use]
    pub fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Why this harness cannot make the check; `None` when it can.
    #[must_use]
    pub fn missing(&self, harness: &dyn Harness) -> Option<String> {
        self.needs.iter().find_map(|need| harness.lacks(*need))
    }

    /// Makes the check.
    ///
    /// # Errors
    ///
    /// What was expected, and what was seen instead. A check that comes to a standstill fails after two minutes.
    pub async fn run(&self, harness: &dyn Harness) -> Result<(), String> {
        let room = Room::enter(harness, self.name).await.map_err(|e| format!("cannot prepare: {}", e.chain()))?;
        let run = AssertUnwindSafe((self.run)(&room)).catch_unwind();
        let ended = match tokio::time::timeout(STANDSTILL, run).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(panic)) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "panicked".to_owned())),
            Err(_) => Err(format!("came to a standstill: not finished after {} s", STANDSTILL.as_secs())),
        };
        let left = room.leave().await.map_err(|e| format!("cannot clean up: {}", e.chain()));
        ended.and(left)
    }
}

const STANDSTILL: Duration = Duration::from_secs(120);

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).field("needs", &self.needs).finish()
    }
}

/// The list.
#[must_use]
pub fn checks() -> &'static [Check] {
    CHECKS
}

macro_rules! checks {
    ($($file:ident::$name:ident $(needs $($need:ident)+)?,)+) => {
        &[$(Check {
            name: stringify!($name),
            needs: &[$($(Need::$need),+)?],
            run: |room| Box::pin($file::$name(room)),
        }),+]
    };
}

static CHECKS: &[Check] = checks![
    folders::the_account_says_which_mailbox_it_is,
    folders::the_tree_has_all_levels_with_their_paths,
    folders::the_tree_has_one_inbox,
    folders::the_inbox_is_found_in_any_case,
    folders::roles_find_what_the_tree_says,
    folders::paths_are_found_exactly_first_then_in_any_case,
    folders::ids_find_their_folder_again,
    folders::names_keep_their_characters,
    folders::a_separator_in_a_name_makes_no_level,
    folders::a_missing_folder_is_told_with_the_nearest_names,
    folders::creating_twice_gives_the_same_folder,
    folders::creating_makes_what_is_missing_above,
    folders::creating_below_the_inbox_works,
    folders::a_new_folder_can_be_written_to,
    folders::a_deleted_folder_is_not_found,
    listing::an_empty_folder_is_empty,
    listing::the_oldest_come_first needs ReceivedTime,
    listing::messages_of_the_same_second_all_come,
    listing::moving_every_message_given_disturbs_nothing needs ManyMessages,
    listing::later_arrivals_belong_to_the_next_listing,
    listing::a_message_that_vanishes_disturbs_nothing needs OtherClient,
    listing::reading_marks_nothing_as_read needs OtherClient,
    listing::unread_only_leaves_out_what_was_read,
    listing::since_leaves_out_what_is_older needs ReceivedTime,
    listing::limit_counts_what_is_given,
    listing::a_message_id_is_found_with_or_without_brackets,
    listing::skip_is_asked_once_for_each_message,
    listing::filters_work_together,
    listing::a_dropped_listing_leaves_the_account_usable,
    messages::the_envelope_is_read,
    messages::the_received_time_is_the_mailboxes needs ReceivedTime,
    messages::headers_come_when_asked_for,
    messages::text_comes_when_asked_for,
    messages::automatic_mail_and_bounces_are_told,
    messages::a_message_without_id_and_date_is_given,
    messages::a_message_without_message_id_has_none needs MissingMessageId,
    messages::garbage_is_a_message_too needs ExactBytes,
    messages::an_unreadable_message_is_given_with_a_defect needs Unreadable,
    messages::a_handle_fetches_its_message,
    messages::handles_survive_reopening,
    messages::handles_survive_what_happens_to_others needs OtherClient,
    messages::an_unknown_handle_is_not_found,
    messages::marking_as_read_works_both_ways,
    messages::marking_is_seen_by_other_clients needs OtherClient,
    messages::marking_answers_for_each_message,
    messages::flags_of_other_clients_are_seen needs OtherClient,
    attachments::files_have_their_names_and_bytes,
    attachments::hard_names_are_decoded,
    attachments::an_attached_message_is_an_eml_item,
    attachments::an_inline_image_is_marked,
    attachments::small_attachments_come_along_as_asked,
    attachments::an_empty_file_is_empty,
    attachments::a_large_file_comes_in_full,
    attachments::text_files_are_attachments_too,
    attachments::the_raw_message_is_the_same_message,
    attachments::the_raw_message_has_the_same_bytes needs ExactBytes,
    attachments::an_unknown_attachment_is_not_found,
    attachments::a_link_is_told_and_refused needs Links,
    attachments::attachment_ids_survive_reopening,
    moves::move_returns_a_usable_id,
    moves::moving_keeps_the_message,
    moves::moving_again_makes_no_copy,
    moves::moving_into_its_own_folder_is_harmless,
    moves::moves_are_answered_one_by_one_and_in_order,
    moves::no_messages_are_moved_with_no_answers,
    moves::a_vanished_message_is_gone_and_the_others_are_moved needs OtherClient,
    moves::a_message_moved_by_somebody_else_is_not_copied needs OtherClient,
    moves::a_message_put_back_is_listed_again needs OtherClient,
    moves::a_missing_target_leaves_all_where_they_are,
    moves::ids_are_as_stable_as_promised,
    overlap::a_download_works_while_a_listing_is_open,
    overlap::two_downloads_can_be_read_in_turns,
    overlap::a_dropped_download_leaves_the_account_usable,
    overlap::moves_work_while_a_listing_and_a_download_are_open,
    overlap::two_listings_can_be_read_in_turns,
    overlap::calls_of_many_tasks_share_one_account,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = checks().iter().map(Check::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), checks().len());
    }
}
