//! What each cause says to a person: what is wrong, and the exact next step, filled with the account's own values.

use super::Cause;
use crate::{Error, Folder, FolderSpec, Language, auth::Auth, folder::nearest};

/// What the texts are filled with.
#[derive(Default)]
pub(super) struct Values<'a> {
    pub(super) account: &'a str,
    pub(super) mailbox: &'a str,
    /// The folder, as the job names it.
    pub(super) spec: &'a str,
    /// The mailbox's folders, as far as they are known.
    pub(super) folders: &'a [Folder],
    /// Where the server is.
    pub(super) server: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
    pub(super) client_id: Option<&'a str>,
    /// What the job needs: of which API, for whom.
    pub(super) permissions: Option<(&'static str, Auth, Vec<&'static str>)>,
}

impl Values<'_> {
    /// What stands in the place of a name in braces; where the account does not say, words that fit.
    fn fill(&self, name: &str, error: &Error, language: Language) -> String {
        let dutch = language == Language::Dutch;
        let noun = |english: &str, dutch_noun: &str, value: Option<&str>| {
            let noun = if dutch { dutch_noun } else { english };
            match (value, noun.split_once(' ')) {
                (Some(value), Some((_, bare))) => format!("{bare} `{value}`"),
                _ => noun.to_owned(),
            }
        };
        match name {
            "account" => self.account.to_owned(),
            "mailbox" => self.mailbox.to_owned(),
            "folder" => self.spec.to_owned(),
            "server" => noun("the server", "de server", self.server),
            "tenant" => noun("the tenant", "de tenant", self.tenant),
            "app" => noun("the application", "de toepassing", self.client_id),
            "permission" => match &self.permissions {
                Some((api, auth, names)) => {
                    let kind = match (auth, dutch) {
                        (Auth::App, false) => "type Application, with admin consent",
                        (Auth::App, true) => "type Toepassing, met beheerderstoestemming",
                        (Auth::Delegated, false) => "type Delegated, with consent",
                        (Auth::Delegated, true) => "type Gedelegeerd, met toestemming",
                    };
                    format!("{} {} {api}, {kind}", listed(names), if dutch { "van" } else { "of" })
                }
                None if dutch => "de rechten die de taak nodig heeft".to_owned(),
                None => "the rights that the job needs".to_owned(),
            },
            "near" => {
                let spec = self.spec.parse::<FolderSpec>().ok();
                let near = spec.map(|spec| nearest(&spec, self.folders)).unwrap_or_default();
                match near.is_empty() {
                    true if dutch => "er is geen map".to_owned(),
                    true => "there is none".to_owned(),
                    false => near.join(", "),
                }
            }
            "reason" => {
                let mut reason: &dyn std::error::Error = error;
                while let Some(source) = reason.source() {
                    reason = source;
                }
                told(&reason.to_string())
            }
            "message" => told(error.message()),
            _ => {
                let mut all = error.message().to_owned();
                let mut next = std::error::Error::source(error);
                while let Some(source) = next {
                    all.push_str(&format!(": {source}"));
                    next = source.source();
                }
                told(&all)
            }
        }
    }
}

/// What is put into a sentence.
fn told(text: &str) -> String {
    text.trim_end_matches('.').to_owned()
}

/// Names of settings or permissions in a sentence.
pub(super) fn listed(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The vendor's page by its name, and what is wrong and the next step in English and in Dutch.
struct Text {
    page: &'static str,
    english: [&'static str; 2],
    dutch: [&'static str; 2],
}

const fn text(page: &'static str, english: [&'static str; 2], dutch: [&'static str; 2]) -> Text {
    Text { page, english, dutch }
}

impl Cause {
    /// The name of the vendor's page about it, to be searched for; where there is one.
    #[must_use]
    pub const fn page(self) -> Option<&'static str> {
        let page = self.text().page;
        if page.is_empty() { None } else { Some(page) }
    }

    /// In English and in Dutch.
    pub(super) fn texts(self, values: &Values<'_>, error: &Error) -> [String; 2] {
        let text = self.text();
        let fill = |parts: [&str; 2], see: &str, language| {
            let mut filled = String::new();
            // In one pass, so that what is filled in is never taken for a place to fill.
            let mut rest = parts.join(" ");
            while let Some((before, after)) = rest.split_once('{') {
                let Some((name, after)) = after.split_once('}') else { break };
                filled.push_str(before);
                filled.push_str(&values.fill(name, error, language));
                rest = after.to_owned();
            }
            filled.push_str(&rest);
            if !text.page.is_empty() {
                filled.push_str(&format!(" {see} \"{}\".", text.page));
            }
            filled
        };
        [fill(text.english, "See", Language::English), fill(text.dutch, "Zie", Language::Dutch)]
    }

    const fn text(self) -> Text {
        match self {
            Self::SettingsWrong => text(
                "",
                [
                    "A setting of account `{account}` or of its job cannot be right: {error}.",
                    "Correct it in the configuration file.",
                ],
                [
                    "Een instelling van account `{account}` of van de taak kan niet kloppen: {error}.",
                    "Verbeter die in het configuratiebestand.",
                ],
            ),
            Self::SecretMissing => text(
                "",
                [
                    "A secret of account `{account}` cannot be read: {error}.",
                    "Set the variable or put the file in place for the user that runs this program.",
                ],
                [
                    "Een geheim van account `{account}` kan niet worden gelezen: {error}.",
                    "Stel de variabele in of zet het bestand klaar voor de gebruiker waaronder dit programma draait.",
                ],
            ),
            Self::SecretIsId => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The client secret of account `{account}` is the secret's ID, not its value.",
                    "Make a new client secret in the app registration and copy the column Value, which is shown only once.",
                ],
                [
                    "Het clientgeheim van account `{account}` is de id van het geheim, niet de waarde.",
                    "Maak een nieuw clientgeheim in de app-registratie en kopieer de kolom Waarde, die maar één keer te zien is.",
                ],
            ),
            Self::DnsFailed => text(
                "",
                [
                    "Account `{account}` cannot be reached: this machine does not know the server's name ({message}).",
                    "Check it for typing errors, and whether this machine can look up names.",
                ],
                [
                    "Account `{account}` is niet te bereiken: deze machine kent de naam van de server niet ({message}).",
                    "Controleer die op typefouten, en of deze machine namen kan opzoeken.",
                ],
            ),
            Self::ConnectionRefused => text(
                "",
                [
                    "Account `{account}` cannot be reached: the connection is refused ({message}).",
                    "Check its address and port in the configuration; if they are right, open the firewall for this machine.",
                ],
                [
                    "Account `{account}` is niet te bereiken: de verbinding wordt geweigerd ({message}).",
                    "Controleer adres en poort in de configuratie; als die kloppen, open dan de firewall voor deze machine.",
                ],
            ),
            Self::TlsName => text(
                "",
                [
                    "The certificate that account `{account}` meets is for another name than the server's ({reason}).",
                    "Write the name that stands in the certificate into the configuration.",
                ],
                [
                    "Het certificaat dat account `{account}` krijgt, is voor een andere naam dan die van de server ({reason}).",
                    "Zet de naam die in het certificaat staat in de configuratie.",
                ],
            ),
            Self::TlsExpired => text(
                "",
                [
                    "The certificate that account `{account}` meets has expired.",
                    "Renew it on the server; if it is valid, correct the clock of this machine.",
                ],
                [
                    "Het certificaat dat account `{account}` krijgt, is verlopen.",
                    "Vernieuw het op de server; als het nog geldig is, zet dan de klok van deze machine goed.",
                ],
            ),
            Self::TlsUnknownCa => text(
                "",
                [
                    "The certificate that account `{account}` meets comes from an authority that this machine does not trust.",
                    "Get the root certificate of the company or proxy as a PEM file and name it in `ca_file`.",
                ],
                [
                    "Het certificaat dat account `{account}` krijgt, komt van een uitgever die deze machine niet vertrouwt.",
                    "Vraag het basiscertificaat van het bedrijf of de proxy als PEM-bestand en noem het in `ca_file`.",
                ],
            ),
            Self::NeedsTls => text(
                "",
                [
                    "Account `{account}` cannot reach {server} safely in this way.",
                    "Set `tls = \"implicit\"` with port 993, or `tls = \"starttls\"` with port 143.",
                ],
                [
                    "Account `{account}` kan {server} op deze manier niet veilig bereiken.",
                    "Stel `tls = \"implicit\"` in met poort 993, of `tls = \"starttls\"` met poort 143.",
                ],
            ),
            Self::Proxy => text(
                "",
                [
                    "Something between this machine and the service of account `{account}` answers in its place.",
                    "Set `proxy`, with a user name and password in its URL if it asks for them; or let the proxy pass the service's addresses without a sign-in.",
                ],
                [
                    "Iets tussen deze machine en de dienst van account `{account}` antwoordt in de plaats van de dienst.",
                    "Stel `proxy` in, met gebruikersnaam en wachtwoord in de URL als die daarom vraagt; of laat de proxy de adressen van de dienst door zonder aanmelding.",
                ],
            ),
            Self::ClockSkew => text(
                "",
                [
                    "The sign-in of account `{account}` is refused because this machine's clock is wrong.",
                    "Synchronise the clock by NTP and try again.",
                ],
                [
                    "De aanmelding van account `{account}` wordt geweigerd omdat de klok van deze machine verkeerd staat.",
                    "Synchroniseer de klok met NTP en probeer het opnieuw.",
                ],
            ),
            Self::TenantUnknown => text(
                "How to find your Microsoft Entra tenant ID",
                [
                    "Account `{account}` names {tenant}, which does not exist, or at which an app cannot sign in.",
                    "Write the tenant's id or domain into `tenant`.",
                ],
                [
                    "Account `{account}` noemt {tenant}; die bestaat niet, of een app kan zich daar niet aanmelden.",
                    "Zet de id of het domein van de tenant in `tenant`.",
                ],
            ),
            Self::WrongCloud => text(
                "National clouds",
                [
                    "Account `{account}` asks for {tenant} in a cloud of Microsoft's that it does not belong to.",
                    "Correct `cloud`.",
                ],
                [
                    "Account `{account}` zoekt {tenant} in een cloud van Microsoft waar die niet bij hoort.",
                    "Verbeter `cloud`.",
                ],
            ),
            Self::ClientIdUnknown => text(
                "Register an application in Microsoft Entra ID",
                [
                    "Account `{account}` signs in as {app}, which is not known in {tenant}.",
                    "Copy the Application (client) ID from the app registration's overview into `client_id`; it is not the object id. An app of another tenant needs consent here first.",
                ],
                [
                    "Account `{account}` meldt zich aan als {app}, die in {tenant} niet bekend is.",
                    "Kopieer de Toepassings-id (client-id) uit het overzicht van de app-registratie naar `client_id`; dat is niet de object-id. Een app van een andere tenant heeft hier eerst toestemming nodig.",
                ],
            ),
            Self::SecretWrong => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The client secret with which account `{account}` signs in as {app} is wrong or missing.",
                    "Copy the secret's value, not its ID; if it was renewed, use the new one.",
                ],
                [
                    "Het clientgeheim waarmee account `{account}` zich aanmeldt als {app}, is onjuist of ontbreekt.",
                    "Kopieer de waarde van het geheim, niet de id; als het vernieuwd is, gebruik dan het nieuwe.",
                ],
            ),
            Self::SecretExpired => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The client secret with which account `{account}` signs in as {app} has expired.",
                    "Make a new client secret in the app registration, and put its value into the configuration.",
                ],
                [
                    "Het clientgeheim waarmee account `{account}` zich aanmeldt als {app}, is verlopen.",
                    "Maak een nieuw clientgeheim in de app-registratie en zet de waarde in de configuratie.",
                ],
            ),
            Self::CertificateRejected => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The certificate or token with which account `{account}` signs in as {app} is not accepted.",
                    "Upload the certificate to the app registration, or correct the federated credential there; check that the key belongs to it and that this machine's clock is right.",
                ],
                [
                    "Het certificaat of token waarmee account `{account}` zich aanmeldt als {app}, wordt niet geaccepteerd.",
                    "Upload het certificaat in de app-registratie, of verbeter daar de federatieve referentie; controleer of de sleutel erbij hoort en of de klok van deze machine goed staat.",
                ],
            ),
            Self::RedirectUri => text(
                "Redirect URI (reply URL) best practices and limitations",
                [
                    "The redirect URI of account `{account}` is not registered, or is registered under another platform.",
                    "Add it to the app registration under Web, character by character.",
                ],
                [
                    "De omleidings-URI van account `{account}` is niet geregistreerd, of onder een ander platform.",
                    "Voeg die toe aan de app-registratie onder Web, teken voor teken.",
                ],
            ),
            Self::RegistrationDisabled => text(
                "Disable user sign-in for an application",
                [
                    "Account `{account}` signs in as {app}, which is disabled in {tenant}.",
                    "Enable it under Enterprise applications.",
                ],
                [
                    "Account `{account}` meldt zich aan als {app}, die in {tenant} is uitgeschakeld.",
                    "Schakel die in onder Bedrijfstoepassingen.",
                ],
            ),
            Self::ConsentMissing => text(
                "Grant tenant-wide admin consent to an application",
                [
                    "In {tenant} nobody has consented to {app} of account `{account}`, or the app registration does not list the permission.",
                    "Add this to the API permissions of the app registration: {permission}.",
                ],
                [
                    "In {tenant} heeft niemand toestemming gegeven aan {app} van account `{account}`, of de app-registratie noemt de machtiging niet.",
                    "Voeg dit toe aan de API-machtigingen van de app-registratie: {permission}.",
                ],
            ),
            Self::ConsentPending => text(
                "Review admin consent requests",
                [
                    "The consent of an administrator is awaited for account `{account}`.",
                    "Approve the request under Enterprise applications, Admin consent requests.",
                ],
                [
                    "Voor account `{account}` wordt op toestemming van een beheerder gewacht.",
                    "Keur het verzoek goed onder Bedrijfstoepassingen, Verzoeken voor beheerderstoestemming.",
                ],
            ),
            Self::ConditionalAccess => text(
                "Conditional Access for workload identities",
                [
                    "Conditional Access blocks account `{account}`.",
                    "Look the sign-in up in the sign-in logs and change the policy, or exclude this application from it.",
                ],
                [
                    "Voorwaardelijke toegang blokkeert account `{account}`.",
                    "Zoek de aanmelding op in de aanmeldingslogboeken en pas het beleid aan, of sluit deze toepassing ervan uit.",
                ],
            ),
            Self::MfaRequired => text(
                "Plan a Microsoft Entra multifactor authentication deployment",
                [
                    "The tenant asks whoever signs in for account `{account}` for a further proof of identity.",
                    "Sign in again in a browser; a job that must not depend on a person uses `auth = \"app\"`.",
                ],
                [
                    "De tenant vraagt wie zich voor account `{account}` aanmeldt om een extra bewijs van identiteit.",
                    "Meld u opnieuw aan in een browser; een taak die niet van een persoon mag afhangen gebruikt `auth = \"app\"`.",
                ],
            ),
            Self::SignInNeeded => text(
                "",
                [
                    "The stored sign-in of account `{account}` is missing or no longer valid.",
                    "Sign in again for `{mailbox}`.",
                ],
                [
                    "De opgeslagen aanmelding van account `{account}` ontbreekt of is niet meer geldig.",
                    "Meld u opnieuw aan voor `{mailbox}`.",
                ],
            ),
            Self::WrongIdentity => text(
                "",
                [
                    "Whoever signed in for account `{account}` is not known in the tenant, or not assigned to the application.",
                    "Sign in with the account of `{mailbox}`, or name in `principal` who signs in; an administrator may have to assign them.",
                ],
                [
                    "Wie zich voor account `{account}` aanmeldde is niet bekend in de tenant, of niet aan de toepassing toegewezen.",
                    "Meld u aan met het account van `{mailbox}`, of noem in `principal` wie zich aanmeldt; een beheerder moet die persoon misschien toewijzen.",
                ],
            ),
            Self::PasswordWrong => text(
                "",
                [
                    "The user name, password or token of account `{account}` is not accepted by {server}.",
                    "Correct it; do not try often, because the mailbox may be locked.",
                ],
                [
                    "De gebruikersnaam, het wachtwoord of het token van account `{account}` wordt niet geaccepteerd door {server}.",
                    "Verbeter het; probeer het niet vaak, want het postvak kan worden vergrendeld.",
                ],
            ),
            Self::PasswordExpired => text(
                "",
                [
                    "The password of account `{account}` has expired.",
                    "Change it, and put the new one into the configuration.",
                ],
                [
                    "Het wachtwoord van account `{account}` is verlopen.",
                    "Wijzig het en zet het nieuwe in de configuratie.",
                ],
            ),
            Self::AccountLocked => text(
                "",
                [
                    "The user of account `{account}` is locked or disabled.",
                    "Unlock or enable the user; wait if it was locked by wrong passwords.",
                ],
                [
                    "De gebruiker van account `{account}` is vergrendeld of uitgeschakeld.",
                    "Ontgrendel of activeer de gebruiker; wacht even als dat door verkeerde wachtwoorden kwam.",
                ],
            ),
            Self::AppPassword => text(
                "",
                [
                    "The service of account `{account}` does not accept the ordinary password here.",
                    "Make an app password there and put it into the configuration.",
                ],
                [
                    "De dienst van account `{account}` accepteert hier niet het gewone wachtwoord.",
                    "Maak daar een app-wachtwoord en zet dat in de configuratie.",
                ],
            ),
            Self::BasicAuthOff => text(
                "Deprecation of Basic authentication in Exchange Online",
                [
                    "Account `{account}` signs in with a password, which is switched off on {server}.",
                    "Use `oauth` for this account, or an account of provider `graph`.",
                ],
                [
                    "Account `{account}` meldt zich aan met een wachtwoord, en dat is uitgeschakeld op {server}.",
                    "Gebruik `oauth` voor dit account, of een account van provider `graph`.",
                ],
            ),
            Self::SignInRefused => text(
                "",
                [
                    "The sign-in of account `{account}` was refused, and {server} does not say why.",
                    "Check user name and credentials, whether signing in with a password and IMAP are switched on for `{mailbox}`, and whether the user is locked.",
                ],
                [
                    "De aanmelding van account `{account}` is geweigerd, en {server} zegt niet waarom.",
                    "Controleer gebruikersnaam en inloggegevens, of aanmelden met een wachtwoord en IMAP aanstaan voor `{mailbox}`, en of de gebruiker vergrendeld is.",
                ],
            ),
            Self::ImapDisabled => text(
                "Enable or disable POP3 or IMAP4 access for a user",
                [
                    "IMAP is switched off for `{mailbox}`, so account `{account}` cannot sign in.",
                    "Switch IMAP on for this mailbox, or use an account of provider `graph`.",
                ],
                [
                    "IMAP staat uit voor `{mailbox}`, dus account `{account}` kan zich niet aanmelden.",
                    "Zet IMAP aan voor dit postvak, of gebruik een account van provider `graph`.",
                ],
            ),
            Self::NotConnected => text(
                "Authenticate an IMAP, POP or SMTP connection using OAuth",
                [
                    "The sign-in of account `{account}` was accepted, but the mailbox was not opened.",
                    "Switch IMAP on for `{mailbox}`, and give whoever signs in full access to it: the person, or the service principal of {app}.",
                ],
                [
                    "De aanmelding van account `{account}` is geaccepteerd, maar het postvak werd niet geopend.",
                    "Zet IMAP aan voor `{mailbox}`, en geef wie zich aanmeldt volledige toegang: de persoon, of de service-principal van {app}.",
                ],
            ),
            Self::ConnectionLimit => text(
                "",
                [
                    "The mailbox of account `{account}` has too many connections open on {server}.",
                    "Close other programs that read `{mailbox}`, and try again in some minutes.",
                ],
                [
                    "Het postvak van account `{account}` heeft te veel open verbindingen op {server}.",
                    "Sluit andere programma's die `{mailbox}` lezen en probeer het over enkele minuten opnieuw.",
                ],
            ),
            Self::MailboxUnknown => text(
                "",
                [
                    "There is no mailbox `{mailbox}`.",
                    "Check the address or path in account `{account}`; for an alias write the main address.",
                ],
                [
                    "Er is geen postvak `{mailbox}`.",
                    "Controleer het adres of pad in account `{account}`; schrijf bij een alias het hoofdadres.",
                ],
            ),
            Self::MailboxNotHosted => text(
                "",
                [
                    "`{mailbox}` has no mailbox in Exchange Online: no licence, deleted, or still on the company's own server.",
                    "Check the licence and where the mailbox is; after assigning a licence, wait 15 minutes. With the permission `User.Read.All` this check can often tell which it is.",
                ],
                [
                    "`{mailbox}` heeft geen postvak in Exchange Online: geen licentie, verwijderd, of nog op de eigen server.",
                    "Controleer de licentie en waar het postvak staat; wacht een kwartier na het toekennen van een licentie. Met de machtiging `User.Read.All` kan deze controle vaak zeggen welke het is.",
                ],
            ),
            Self::NoLicence => text(
                "Assign or unassign licenses for users in the Microsoft 365 admin center",
                [
                    "There is no licence for Exchange Online for `{mailbox}`, so account `{account}` finds no mailbox.",
                    "Assign one to the user, and wait 15 minutes; a shared mailbox that was deleted must be restored first.",
                ],
                [
                    "Er is geen licentie voor Exchange Online voor `{mailbox}`, dus account `{account}` vindt geen postvak.",
                    "Ken de gebruiker er een toe en wacht een kwartier; een verwijderd gedeeld postvak moet eerst worden hersteld.",
                ],
            ),
            Self::LicenceLag => text(
                "",
                [
                    "`{mailbox}` has had its licence for less than half an hour, and Exchange is still making the mailbox.",
                    "Wait 15 minutes and check again.",
                ],
                [
                    "`{mailbox}` heeft de licentie nog geen half uur, en Exchange is het postvak nog aan het maken.",
                    "Wacht een kwartier en controleer opnieuw.",
                ],
            ),
            Self::OnPremises => text(
                "",
                [
                    "`{mailbox}` belongs to the company's own directory and has no licence for Exchange Online: its mailbox is most likely still on the company's own server.",
                    "Move the mailbox to Exchange Online, or read it there with an account of provider `imap`.",
                ],
                [
                    "`{mailbox}` hoort bij de eigen adreslijst van het bedrijf en heeft geen licentie voor Exchange Online: het postvak staat waarschijnlijk nog op de eigen server.",
                    "Verplaats het postvak naar Exchange Online, of lees het daar met een account van provider `imap`.",
                ],
            ),
            Self::PermissionLacking => text(
                "Microsoft Graph permissions reference",
                [
                    "Account `{account}` may not do in `{mailbox}` what the job needs.",
                    "Grant {permission}; or have an administrator of Exchange extend the role that lets it in.",
                ],
                [
                    "Account `{account}` mag in `{mailbox}` niet doen wat de taak nodig heeft.",
                    "Verleen {permission}; of laat een beheerder van Exchange de rol uitbreiden die toegang geeft.",
                ],
            ),
            Self::PermissionWrongKind => text(
                "Overview of permissions and consent in the Microsoft identity platform",
                [
                    "The token of account `{account}` holds no permission of the kind that it needs for `{mailbox}`.",
                    "Look at the column Type of the API permissions of {app}, and grant {permission}. If access is to come from RBAC for Applications in Exchange instead, its scope leaves this mailbox out.",
                ],
                [
                    "Het token van account `{account}` bevat geen machtiging van de soort die het voor `{mailbox}` nodig heeft.",
                    "Kijk naar de kolom Type bij de API-machtigingen van {app}, en verleen {permission}. Moet de toegang van RBAC voor toepassingen in Exchange komen, dan valt dit postvak buiten het bereik daarvan.",
                ],
            ),
            Self::PermissionSurplus => text(
                "Role Based Access Control for Applications in Exchange Online",
                [
                    "Account `{account}` works, but {app} is permitted more than the job needs: {error}.",
                    "Remove these permissions from the app registration, unless something else uses them.",
                ],
                [
                    "Account `{account}` werkt, maar {app} mag meer dan de taak nodig heeft: {error}.",
                    "Verwijder deze machtigingen uit de app-registratie, tenzij iets anders ze gebruikt.",
                ],
            ),
            Self::RbacScope => text(
                "Role Based Access Control for Applications in Exchange Online",
                [
                    "Exchange's RBAC for Applications lets {app} into other mailboxes, but `{mailbox}` of account `{account}` is not in its scope.",
                    "Add the mailbox to the management scope or administrative unit of the role; that takes from 30 minutes to 2 hours to work.",
                ],
                [
                    "RBAC voor toepassingen van Exchange laat {app} in andere postvakken, maar `{mailbox}` van account `{account}` valt niet binnen het bereik.",
                    "Voeg het postvak toe aan het beheerbereik of de beheereenheid van de rol; het duurt een half uur tot twee uur voordat dat werkt.",
                ],
            ),
            Self::PolicyExcludesMailbox => text(
                "Limit application permissions to specific Exchange Online mailboxes",
                [
                    "An application access policy of Exchange keeps {app} of account `{account}` out of `{mailbox}`.",
                    "Add the mailbox to the policy's group; that can take more than an hour to work.",
                ],
                [
                    "Een toegangsbeleid voor toepassingen van Exchange houdt {app} van account `{account}` buiten `{mailbox}`.",
                    "Voeg het postvak toe aan de groep van het beleid; het kan meer dan een uur duren voordat dat werkt.",
                ],
            ),
            Self::SharedRightsMissing => text(
                "Manage permissions for recipients in Exchange Online",
                [
                    "Whoever signs in for account `{account}` has no rights on `{mailbox}`.",
                    "Give them full access to the mailbox.",
                ],
                [
                    "Wie zich voor account `{account}` aanmeldt, heeft geen rechten op `{mailbox}`.",
                    "Geef die persoon volledige toegang tot het postvak.",
                ],
            ),
            Self::FolderMissing => text(
                "",
                [
                    "There is no folder `{folder}` in `{mailbox}`; the nearest: {near}.",
                    "Correct the name in the job, or create the folder.",
                ],
                [
                    "Er is geen map `{folder}` in `{mailbox}`; het dichtst daarbij: {near}.",
                    "Verbeter de naam in de taak, of maak de map aan.",
                ],
            ),
            Self::FolderAmbiguous => text(
                "",
                [
                    "The name `{folder}` fits several folders of `{mailbox}`.",
                    "Write one of them with exact capitals, or by its `id:`.",
                ],
                [
                    "De naam `{folder}` past bij meerdere mappen van `{mailbox}`.",
                    "Schrijf één ervan met de juiste hoofdletters, of met `id:`.",
                ],
            ),
            Self::FolderReadOnly => text(
                "",
                [
                    "Account `{account}` may not write to the folder `{folder}` of `{mailbox}`, but mail is to be moved.",
                    "Grant write access to the folder.",
                ],
                [
                    "Account `{account}` mag niet schrijven in de map `{folder}` van `{mailbox}`, maar er moet mail worden verplaatst.",
                    "Geef schrijfrechten op de map.",
                ],
            ),
            Self::FolderSame => text(
                "",
                [
                    "Mail would be moved to the folder `{folder}` that it is read from.",
                    "Name another folder in `processed_folder` or `failed_folder`.",
                ],
                [
                    "Mail zou worden verplaatst naar de map `{folder}` waaruit ook wordt gelezen.",
                    "Noem een andere map in `processed_folder` of `failed_folder`.",
                ],
            ),
            Self::FolderNoMail => text(
                "",
                [
                    "The folder `{folder}` of `{mailbox}` cannot be used: it is a search folder, or only holds other folders.",
                    "Name an ordinary mail folder.",
                ],
                [
                    "De map `{folder}` van `{mailbox}` is niet bruikbaar: het is een zoekmap, of bevat alleen andere mappen.",
                    "Noem een gewone mailmap.",
                ],
            ),
            Self::Throttled => text(
                "",
                [
                    "The service asks account `{account}` for a pause.",
                    "Wait some minutes; if it goes on, fewer programs should read the mailbox at once.",
                ],
                [
                    "De dienst vraagt account `{account}` om een pauze.",
                    "Wacht enkele minuten; als het aanhoudt, laat dan minder programma's tegelijk het postvak lezen.",
                ],
            ),
            Self::ServiceDown => text(
                "",
                [
                    "The service of account `{account}` cannot be reached or is failing.",
                    "Try again later; if it goes on, look at the service's health page.",
                ],
                [
                    "De dienst van account `{account}` is niet bereikbaar of heeft een storing.",
                    "Probeer het later opnieuw; als het aanhoudt, bekijk dan de statuspagina van de dienst.",
                ],
            ),
            Self::NoAnswer => text(
                "",
                [
                    "The service of account `{account}` did not answer in time.",
                    "Check that a firewall lets this machine through; else try again later.",
                ],
                [
                    "De dienst van account `{account}` antwoordde niet op tijd.",
                    "Controleer of een firewall deze machine doorlaat; probeer het anders later opnieuw.",
                ],
            ),
            Self::Unknown => text(
                "",
                [
                    "The service of account `{account}` gave an answer that is not known here: {error}.",
                    "Pass the technical details (`evidence`) on to the vendor's support.",
                ],
                [
                    "De dienst van account `{account}` gaf een antwoord dat hier niet bekend is: {error}.",
                    "Geef de technische gegevens (`evidence`) door aan de ondersteuning van de leverancier.",
                ],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::ErrorKind;

    /// A file of the sources that follows from the code. `RENEW=1 cargo test --lib check::texts` writes it anew.
    fn holds(file: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("RENEW").is_some() {
            fs::write(&path, text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let differs = text.lines().zip(kept.lines()).find(|(new, old)| new != old);
        assert!(
            text == kept,
            "{file} is no longer what the code says; read it aloud, and renew it with RENEW=1: {differs:#?}"
        );
    }

    fn page(head: &str, language: Language) -> String {
        let mut page = head.to_owned();
        for cause in Cause::ALL {
            let text = cause.text();
            let (parts, see) = match language {
                Language::Dutch => (text.dutch, "Zie"),
                _ => (text.english, "See"),
            };
            let see = if text.page.is_empty() { String::new() } else { format!(" {see} \"{}\".", text.page) };
            page.push_str(&format!("| `{}` | `{}` | {}{see} |\n", cause.code(), cause.who().as_str(), parts.join(" ")));
        }
        page
    }

    #[test]
    fn the_pages_of_causes_say_what_the_code_says() {
        holds("docs/causes.md", &page(ENGLISH, Language::English));
        holds("docs/causes.nl.md", &page(DUTCH, Language::Dutch));
    }

    const ENGLISH: &str = "\
# What Test Connection can find

The codes are stable. `who` is who repairs it: `you` write the configuration; `it-admin` looks after the network and the
tenant; `exchange-admin` after Exchange or the mail server; `vendor` is the maker of the program or the service. What
stands in braces is filled with the account's own values. The names in quotes are pages of the service's own
documentation, to be searched for.

[In het Nederlands](causes.nl.md)

| code | who | what is wrong, and the next step |
|---|---|---|
";

    const DUTCH: &str = "\
# Wat Verbinding testen kan vinden

De codes blijven gelijk. `who` is wie het herstelt: `you` schrijft de configuratie; `it-admin` beheert het netwerk en de
tenant; `exchange-admin` beheert Exchange of de mailserver; `vendor` is de maker van het programma of de dienst. Wat
tussen accolades staat wordt gevuld met de eigen waarden van het account. De namen tussen aanhalingstekens zijn pagina's
uit de documentatie van de dienst, om op te zoeken.

[In English](causes.md)

| code | wie | wat er mis is, en de volgende stap |
|---|---|---|
";

    #[test]
    fn every_cause_says_what_and_what_next_in_both_languages() {
        let values = Values {
            account: "invoices",
            mailbox: "facturen@contoso.nl",
            spec: "Inbox/Processed",
            folders: &[],
            server: Some("outlook.office365.com:993"),
            tenant: Some("contoso.nl"),
            client_id: Some("1111"),
            permissions: Some(("Microsoft Graph", Auth::App, vec!["Mail.ReadWrite"])),
        };
        let bare = Values {
            account: "invoices",
            mailbox: "facturen@contoso.nl",
            spec: "Inbox/Processed",
            ..Values::default()
        };
        let error = Error::new(ErrorKind::Other, "the service's answer {mailbox}.");
        let (mut all, mut less) = (String::new(), String::new());
        for cause in Cause::ALL {
            let full = cause.texts(&values, &error);
            let bare = cause.texts(&bare, &error);
            for text in full.iter().chain(&bare) {
                let filled = text.replace("the service's answer {mailbox}", "");
                assert!(!filled.contains(['{', '}']) && !filled.contains("``"), "{text}");
                assert!(text.ends_with('.'), "{text}");
            }
            let [english, dutch] = &full;
            assert_ne!(english, dutch);
            assert_eq!(english.contains("the service's answer"), dutch.contains("the service's answer"), "{english}");
            all.push_str(&format!("{} ({})\n  {english}\n  {dutch}\n", cause.code(), cause.who().as_str()));
            if bare != full {
                less.push_str(&format!("{}\n  {}\n  {}\n", cause.code(), bare[0], bare[1]));
            }
        }
        holds("src/check/texts.snapshot.txt", &format!("{all}\nWhere the account does not say more:\n\n{less}"));
    }
}
