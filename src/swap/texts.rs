//! What a rehearsal's findings mean to a person, in English and Dutch.

use super::report::{DifferenceKind, UnprovenKind};
use crate::Language;

const fn pick(language: Language, [english, dutch]: [&'static str; 2]) -> &'static str {
    match language {
        Language::Dutch => dutch,
        Language::English => english,
    }
}

impl DifferenceKind {
    /// What it is, as the head of its [details](super::Difference::detail).
    #[must_use]
    pub const fn text(self, language: Language) -> &'static str {
        let both = match self {
            Self::OldAccountError => ["The old account fails", "Het oude account werkt niet"],
            Self::NewAccountError => ["The new account fails", "Het nieuwe account werkt niet"],
            Self::FolderMissing => ["A folder is missing", "Er ontbreekt een map"],
            Self::FolderUnusable => ["A folder cannot be used", "Een map is niet bruikbaar"],
            Self::FolderReadOnly => ["A folder is read-only", "Een map is alleen-lezen"],
            Self::OtherMailbox => ["Two mailboxes", "Twee postvakken"],
            Self::MailboxName => ["The mailbox has two names", "Het postvak heeft twee namen"],
            Self::NewLedger => ["What was imported would be forgotten", "Wat is geïmporteerd zou worden vergeten"],
            Self::MessageMissing => {
                ["Only the old account shows a message", "Alleen het oude account toont een bericht"]
            }
            Self::MessageExtra => {
                ["Only the new account shows a message", "Alleen het nieuwe account toont een bericht"]
            }
            Self::MessageUnreadable => {
                ["The new account cannot read a message", "Het nieuwe account kan een bericht niet lezen"]
            }
            Self::ContentDiffers => ["Attached files differ", "Bijlagen verschillen"],
            Self::MessageDiffers => ["A message would pass for another one", "Een bericht zou voor een ander doorgaan"],
            Self::ReadStateDiffers => ["Read for one, unread for the other", "Voor de een gelezen, voor de ander niet"],
            Self::FileNameDiffers => ["A file has another name", "Een bestand heet anders"],
            Self::SubjectDiffers => ["The subject differs", "Het onderwerp verschilt"],
            Self::AddressesDiffer => ["Addresses differ", "Adressen verschillen"],
            Self::SentDiffers => ["The sent time differs", "De verzendtijd verschilt"],
            Self::ItemsDiffer => {
                ["Attached messages or links differ", "Bijgevoegde berichten of koppelingen verschillen"]
            }
            Self::MessageIdAdded => ["A Message-ID was made up", "Er is een Message-ID bij gemaakt"],
            Self::ChangedMeanwhile => ["Changed meanwhile", "Intussen gewijzigd"],
            Self::StableIds => ["Ids of moved messages", "Id's van verplaatste berichten"],
        };
        pick(language, both)
    }

    /// What to do where it is [blocking](super::Severity::Blocking); empty where there is nothing to do.
    #[must_use]
    pub const fn remedy(self, language: Language) -> &'static str {
        let both = match self {
            Self::OldAccountError | Self::NewAccountError => [
                "Test the account with `check` and this job; it says who repairs what.",
                "Test het account met `check` en deze taak; dat zegt wie wat herstelt.",
            ],
            Self::FolderMissing => [
                "Correct the folder's name in the job, make the folder in the mailbox, or set `create_folders = true`.",
                "Verbeter de naam van de map in de taak, maak de map in het postvak, of stel `create_folders = true` in.",
            ],
            Self::FolderUnusable => [
                "Name an ordinary mail folder, with exact capitals or by its `id:`, and another one for each purpose.",
                "Noem een gewone mailmap, met de juiste hoofdletters of met `id:`, en voor elk doel een andere.",
            ],
            Self::FolderReadOnly => [
                "Give the new account write access to the folder.",
                "Geef het nieuwe account schrijfrechten op de map.",
            ],
            Self::OtherMailbox => [
                "Check `mailbox` or `username` of the new account: it reads another mailbox, or other folders.",
                "Controleer `mailbox` of `username` van het nieuwe account: het leest een ander postvak, of andere mappen.",
            ],
            Self::NewLedger => [
                "If it is the same mailbox, remove `ledger = \"new\"` and give both accounts the same `address`.",
                "Als het hetzelfde postvak is, verwijder dan `ledger = \"new\"` en geef beide accounts hetzelfde `address`.",
            ],
            Self::MessageMissing => [
                "Wait until all mail is in the mailbox that the new account reads; a message that only the old one has would never be imported.",
                "Wacht tot alle mail in het postvak staat dat het nieuwe account leest; een bericht dat alleen het oude heeft zou nooit worden geïmporteerd.",
            ],
            Self::MessageExtra => [
                "Find out where it comes from; the new account would import it.",
                "Zoek uit waar het vandaan komt; het nieuwe account zou het importeren.",
            ],
            Self::MessageUnreadable => [
                "Import the message with the old account first, or move it out of the folder.",
                "Importeer het bericht eerst met het oude account, of haal het uit de map.",
            ],
            Self::ContentDiffers | Self::MessageDiffers => [
                "Import the message with the old account first; the new one would take it for another message and import it again.",
                "Importeer het bericht eerst met het oude account; het nieuwe zou het voor een ander bericht houden en nog eens importeren.",
            ],
            Self::ReadStateDiffers => [
                "The job takes unread messages only: mark the message alike, or import it with the old account first.",
                "De taak neemt alleen ongelezen berichten: markeer het bericht gelijk, of importeer het eerst met het oude account.",
            ],
            _ => ["", ""],
        };
        pick(language, both)
    }
}

impl UnprovenKind {
    /// What it is, as the head of its [details](super::Unproven::detail).
    #[must_use]
    pub const fn text(self, language: Language) -> &'static str {
        let both = match self {
            Self::Writable => ["Not proven: writing to a folder", "Niet bewezen: schrijven in een map"],
            Self::CreateFolder => ["Not proven: making a folder", "Niet bewezen: een map maken"],
            Self::Attachments => ["Not compared: some attachments", "Niet vergeleken: sommige bijlagen"],
            Self::SameMailbox => ["Not proven: the same mailbox", "Niet bewezen: hetzelfde postvak"],
            Self::Ledger => ["Not known: what was imported", "Niet bekend: wat is geïmporteerd"],
            Self::SinceNow => ["Not considered: `since`", "Niet meegenomen: `since`"],
        };
        pick(language, both)
    }
}
