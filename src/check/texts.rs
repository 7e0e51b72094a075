//! What each cause says to a person: what is wrong, and the exact next step, filled with the account's own values.

use super::Cause;

/// What the texts are filled with.
pub(super) struct Values<'a> {
    pub(super) account: &'a str,
    pub(super) mailbox: &'a str,
    /// The folder, as the job names it.
    pub(super) spec: &'a str,
    /// The names of folders that are there.
    pub(super) near: &'a str,
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

    /// In English and in Dutch. `error` is the service's own answer.
    pub(super) fn texts(self, values: &Values<'_>, error: &str) -> [String; 2] {
        let text = self.text();
        let fill = |parts: [&str; 2], see: &str| {
            let mut filled = String::new();
            // In one pass, so that what is filled in is never taken for a place to fill.
            let mut rest = parts.join(" ");
            while let Some((before, after)) = rest.split_once('{') {
                let Some((name, after)) = after.split_once('}') else { break };
                filled.push_str(before);
                filled.push_str(match name {
                    "account" => values.account,
                    "mailbox" => values.mailbox,
                    "folder" => values.spec,
                    "near" => values.near,
                    _ => error.trim_end_matches('.'),
                });
                rest = after.to_owned();
            }
            filled.push_str(&rest);
            if !text.page.is_empty() {
                filled.push_str(&format!(" {see} \"{}\".", text.page));
            }
            filled
        };
        [fill(text.english, "See"), fill(text.dutch, "Zie")]
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
                    "The server's name in account `{account}` is not known.",
                    "Check it for typing errors, and whether this machine can look up names.",
                ],
                [
                    "De servernaam in account `{account}` is niet bekend.",
                    "Controleer die op typefouten, en of deze machine namen kan opzoeken.",
                ],
            ),
            Self::ConnectionRefused => text(
                "",
                [
                    "The server of account `{account}` refuses the connection.",
                    "Check its address and port in the configuration; if they are right, open the firewall for this machine.",
                ],
                [
                    "De server van account `{account}` weigert de verbinding.",
                    "Controleer adres en poort in de configuratie; als die kloppen, open dan de firewall voor deze machine.",
                ],
            ),
            Self::TlsName => text(
                "",
                [
                    "The server's certificate is for another name than the one in account `{account}`.",
                    "Write the name that stands in the certificate into `host`.",
                ],
                [
                    "Het certificaat van de server is voor een andere naam dan die in account `{account}`.",
                    "Zet de naam die in het certificaat staat in `host`.",
                ],
            ),
            Self::TlsExpired => text(
                "",
                [
                    "The certificate of the server of account `{account}` has expired.",
                    "Renew it on the server; if it is valid, correct the clock of this machine.",
                ],
                [
                    "Het certificaat van de server van account `{account}` is verlopen.",
                    "Vernieuw het op de server; als het nog geldig is, zet dan de klok van deze machine goed.",
                ],
            ),
            Self::TlsUnknownCa => text(
                "",
                [
                    "The certificate of the server of account `{account}` comes from an authority that this machine does not trust.",
                    "Get the root certificate of the company or proxy as a PEM file and name it in `ca_file`.",
                ],
                [
                    "Het certificaat van de server van account `{account}` komt van een uitgever die deze machine niet vertrouwt.",
                    "Vraag het basiscertificaat van het bedrijf of de proxy als PEM-bestand en noem het in `ca_file`.",
                ],
            ),
            Self::NeedsTls => text(
                "",
                [
                    "The server of account `{account}` cannot be reached safely in this way.",
                    "Set `tls = \"implicit\"` with port 993, or `tls = \"starttls\"` with port 143.",
                ],
                [
                    "De server van account `{account}` is op deze manier niet veilig te bereiken.",
                    "Stel `tls = \"implicit\"` in met poort 993, of `tls = \"starttls\"` met poort 143.",
                ],
            ),
            Self::Proxy => text(
                "",
                [
                    "Something between this machine and the service of account `{account}` answers in its place: {error}.",
                    "Set `proxy`, or let the proxy pass the service's addresses without a sign-in.",
                ],
                [
                    "Iets tussen deze machine en de dienst van account `{account}` antwoordt in de plaats van de dienst: {error}.",
                    "Stel `proxy` in, of laat de proxy de adressen van de dienst door zonder aanmelding.",
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
                    "The tenant of account `{account}` does not exist, or is none that an app can sign in at.",
                    "Write the tenant's id or domain into `tenant`.",
                ],
                [
                    "De tenant van account `{account}` bestaat niet, of is er geen waar een app zich kan aanmelden.",
                    "Zet de id of het domein van de tenant in `tenant`.",
                ],
            ),
            Self::WrongCloud => text(
                "National clouds",
                ["The tenant of account `{account}` belongs to another cloud of Microsoft.", "Correct `cloud`."],
                ["De tenant van account `{account}` hoort bij een andere cloud van Microsoft.", "Verbeter `cloud`."],
            ),
            Self::ClientIdUnknown => text(
                "Register an application in Microsoft Entra ID",
                [
                    "The tenant of account `{account}` has no application with this client id.",
                    "Copy the Application (client) ID from the app registration's overview; it is not the object id. An app of another tenant needs consent here first.",
                ],
                [
                    "De tenant van account `{account}` heeft geen toepassing met deze client-id.",
                    "Kopieer de Toepassings-id (client-id) uit het overzicht van de app-registratie; dat is niet de object-id. Een app van een andere tenant heeft hier eerst toestemming nodig.",
                ],
            ),
            Self::SecretWrong => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The client secret of account `{account}` is wrong or missing.",
                    "Copy the secret's value, not its ID; if it was renewed, use the new one.",
                ],
                [
                    "Het clientgeheim van account `{account}` is onjuist of ontbreekt.",
                    "Kopieer de waarde van het geheim, niet de id; als het vernieuwd is, gebruik dan het nieuwe.",
                ],
            ),
            Self::SecretExpired => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The client secret of account `{account}` has expired.",
                    "Make a new client secret in the app registration, and put its value into the configuration.",
                ],
                [
                    "Het clientgeheim van account `{account}` is verlopen.",
                    "Maak een nieuw clientgeheim in de app-registratie en zet de waarde in de configuratie.",
                ],
            ),
            Self::CertificateRejected => text(
                "Add and manage application credentials in Microsoft Entra ID",
                [
                    "The certificate of account `{account}` is not accepted.",
                    "Upload it to the app registration, and check that the key belongs to it and that this machine's clock is right.",
                ],
                [
                    "Het certificaat van account `{account}` wordt niet geaccepteerd.",
                    "Upload het in de app-registratie, en controleer of de sleutel erbij hoort en of de klok van deze machine goed staat.",
                ],
            ),
            Self::RedirectUri => text(
                "Redirect URI (reply URL) best practices and limitations",
                [
                    "The redirect URI of account `{account}` is not registered.",
                    "Add it to the app registration under Web, character by character.",
                ],
                [
                    "De omleidings-URI van account `{account}` is niet geregistreerd.",
                    "Voeg die toe aan de app-registratie onder Web, teken voor teken.",
                ],
            ),
            Self::RegistrationDisabled => text(
                "Disable user sign-in for an application",
                [
                    "The application of account `{account}` is disabled in the tenant.",
                    "Enable it under Enterprise applications.",
                ],
                [
                    "De toepassing van account `{account}` is in de tenant uitgeschakeld.",
                    "Schakel die in onder Bedrijfstoepassingen.",
                ],
            ),
            Self::ConsentMissing => text(
                "Grant tenant-wide admin consent to an application",
                [
                    "Nobody has consented to the application of account `{account}`, or a permission is not listed there.",
                    "Check the API permissions of the app registration and grant admin consent.",
                ],
                [
                    "Niemand heeft toestemming gegeven aan de toepassing van account `{account}`, of er ontbreekt een machtiging.",
                    "Controleer de API-machtigingen van de app-registratie en verleen beheerderstoestemming.",
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
                "",
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
                    "The user name, password or token of account `{account}` is not accepted.",
                    "Correct it; do not try often, because the mailbox may be locked.",
                ],
                [
                    "De gebruikersnaam, het wachtwoord of het token van account `{account}` wordt niet geaccepteerd.",
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
                    "Signing in with a password is switched off for account `{account}`.",
                    "Use `oauth` for this account, or an account of provider `graph`.",
                ],
                [
                    "Aanmelden met een wachtwoord is uitgeschakeld voor account `{account}`.",
                    "Gebruik `oauth` voor dit account, of een account van provider `graph`.",
                ],
            ),
            Self::SignInRefused => text(
                "",
                [
                    "The sign-in of account `{account}` was refused, and the service does not say why: {error}.",
                    "Check user name and credentials, whether IMAP is switched on for the mailbox, and whether the user is locked.",
                ],
                [
                    "De aanmelding van account `{account}` is geweigerd, en de dienst zegt niet waarom: {error}.",
                    "Controleer gebruikersnaam en inloggegevens, of IMAP aanstaat voor het postvak, en of de gebruiker vergrendeld is.",
                ],
            ),
            Self::NotConnected => text(
                "Authenticate an IMAP, POP or SMTP connection using OAuth",
                [
                    "The sign-in of account `{account}` was accepted, but the mailbox was not opened.",
                    "Switch IMAP on for `{mailbox}`, and give the signed-in user or the application full access to it.",
                ],
                [
                    "De aanmelding van account `{account}` is geaccepteerd, maar het postvak werd niet geopend.",
                    "Zet IMAP aan voor `{mailbox}`, en geef de aangemelde gebruiker of de toepassing volledige toegang.",
                ],
            ),
            Self::ConnectionLimit => text(
                "",
                [
                    "The mailbox of account `{account}` has too many connections open.",
                    "Close other programs that read `{mailbox}`, and try again in some minutes.",
                ],
                [
                    "Het postvak van account `{account}` heeft te veel open verbindingen.",
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
                    "Check the licence and where the mailbox is hosted; after assigning a licence, wait 15 minutes.",
                ],
                [
                    "`{mailbox}` heeft geen postvak in Exchange Online: geen licentie, verwijderd, of nog op de eigen server.",
                    "Controleer de licentie en waar het postvak staat; wacht een kwartier na het toekennen van een licentie.",
                ],
            ),
            Self::PermissionLacking => text(
                "Microsoft Graph permissions reference",
                [
                    "Account `{account}` may not read or move mail in `{mailbox}`.",
                    "Grant `Mail.ReadWrite`, of type Application for `auth = \"app\"` and of type Delegated otherwise, with admin consent; or extend the scope of the Exchange role to this mailbox.",
                ],
                [
                    "Account `{account}` mag in `{mailbox}` geen mail lezen of verplaatsen.",
                    "Verleen `Mail.ReadWrite`, van het type Toepassing bij `auth = \"app\"` en anders Gedelegeerd, met beheerderstoestemming; of breid het bereik van de Exchange-rol uit tot dit postvak.",
                ],
            ),
            Self::PolicyExcludesMailbox => text(
                "Limit application permissions to specific Exchange Online mailboxes",
                [
                    "An application access policy keeps account `{account}` out of `{mailbox}`.",
                    "Add the mailbox to the policy's group; that takes up to some hours to work.",
                ],
                [
                    "Een toegangsbeleid voor toepassingen houdt account `{account}` buiten `{mailbox}`.",
                    "Voeg het postvak toe aan de groep van het beleid; het duurt soms enkele uren voordat dat werkt.",
                ],
            ),
            Self::SharedRightsMissing => text(
                "",
                [
                    "Whoever signs in for account `{account}` has no rights on `{mailbox}`.",
                    "Give them full access to the mailbox.",
                ],
                [
                    "Wie zich voor account `{account}` aanmeldt heeft geen rechten op `{mailbox}`.",
                    "Geef die persoon volledige toegang tot het postvak.",
                ],
            ),
            Self::FolderMissing => text(
                "",
                [
                    "There is no folder `{folder}` in `{mailbox}`; the nearest are {near}.",
                    "Correct the name in the job, or create the folder.",
                ],
                [
                    "Er is geen map `{folder}` in `{mailbox}`; het dichtst daarbij komen {near}.",
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
                    "The service of account `{account}` cannot be reached or is failing: {error}.",
                    "Try again later; if it goes on, look at the service's health page.",
                ],
                [
                    "De dienst van account `{account}` is niet bereikbaar of heeft een storing: {error}.",
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
    use super::*;

    #[test]
    fn every_cause_says_what_and_what_next_in_both_languages() {
        let values = Values {
            account: "invoices",
            mailbox: "facturen@contoso.nl",
            spec: "Inbox/Processed",
            near: "`Inbox`, `Inbox/Proces`",
        };
        let mut all = String::new();
        for cause in Cause::ALL {
            let [english, dutch] = cause.texts(&values, "the service's answer {mailbox}.");
            assert!(!english.contains("{account}") && !dutch.contains("{account}"), "{english}");
            assert!(english.ends_with('.') && dutch.ends_with('.') && english != dutch, "{english}");
            assert_eq!(
                english.contains("the service's answer {mailbox}"),
                dutch.contains("the service's answer {mailbox}")
            );
            all.push_str(&format!("{} ({})\n  {english}\n  {dutch}\n", cause.code(), cause.who().as_str()));
        }
        assert_eq!(
            all,
            include_str!("texts.snapshot.txt"),
            "the texts have changed; read them aloud, then renew the file"
        );
    }
}
