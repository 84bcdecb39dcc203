retry-in =
    { $seconds ->
        [one] Probeer het over { $seconds } seconde opnieuw.
       *[other] Probeer het over { $seconds } seconden opnieuw.
    }

bad-request = Het verzoek is niet te begrijpen.
    .title = Onjuist verzoek
invalid-field = Het veld ‘{ $field }’ ontbreekt of heeft een waarde die niet is toegestaan.
    .title = Ongeldig veld
too-many-items =
    { $limit ->
        [one] Het veld ‘{ $field }’ mag hoogstens { $limit } element bevatten.
       *[other] Het veld ‘{ $field }’ mag hoogstens { $limit } elementen bevatten.
    }
    .title = Te veel elementen
body-too-large = De inhoud van het verzoek is te groot.
    .more = Hoogstens { $limit } B wordt aangenomen.
    .title = Verzoek te groot
body-timeout = De inhoud van het verzoek is niet op tijd aangekomen.
    .title = Tijd voor het verzoek verstreken
unsupported-media-type = Dit soort inhoud wordt hier niet gelezen.
    .more = Toegestaan: { $accepted }.
    .title = Mediatype niet ondersteund
base64-invalid = Het veld ‘{ $field }’ moet een afbeelding als base64 of als data-URI bevatten.
    .title = Ongeldige base64
url-refused = Adressen worden nooit opgehaald. Stuur de afbeelding zelf: als bestand, als base64 of als data-URI.
    .title = Adres geweigerd
not-an-image = De verstuurde gegevens zijn beschadigd of geen afbeelding.
    .title = Geen afbeelding
image-truncated = De afbeelding is beschadigd of onvolledig.
    .title = Beschadigde afbeelding
image-too-large = De afbeelding is te groot. Toegestaan is hoogstens { $limit } px in totaal en { $side } px per zijde.
    .title = Afbeelding te groot
image-too-small = De afbeelding meet { $width } × { $height } px. Elke zijde moet minstens { $least } px hebben.
    .title = Afbeelding te klein
image-animated = De afbeelding is een animatie. Stuur één beeld daaruit.
    .title = Bewegende afbeelding
image-too-complex = De afbeelding is in te veel stappen opgeslagen. Sla de afbeelding opnieuw op als gewone JPEG of PNG.
    .title = Afbeelding te ingewikkeld
image-format = Dit afbeeldingsformaat wordt hier niet gelezen.
    .more = Toegestaan: { $formats }.
    .title = Afbeeldingsformaat niet ondersteund
text-empty = Het veld ‘{ $field }’ mag niet leeg zijn.
    .title = Lege tekst
text-too-long =
    { $limit ->
        [one] Het veld ‘{ $field }’ mag hoogstens { $limit } teken hebben.
       *[other] Het veld ‘{ $field }’ mag hoogstens { $limit } tekens hebben.
    }
    .title = Tekst te lang
text-too-many-tokens = De tekst in het veld ‘{ $field }’ is te lang voor het model. Maak die korter.
    .title = Tekst te lang voor het model
text-control = Het veld ‘{ $field }’ bevat een teken dat niet is toegestaan: { $character }.
    .title = Teken niet toegestaan
language-unknown = Het model spreekt deze taal niet.
    .more = Beschikbaar: { $languages }.
    .title = Onbekende taal
unauthorized = Dit verzoek heeft een sleutel of een token nodig.
    .title = Niet aangemeld
key-invalid = De sleutel is ongeldig.
    .title = Ongeldige sleutel
token-invalid = Het token is ongeldig.
    .title = Ongeldig token
token-expired = Het token is verlopen. Vraag een nieuw aan.
    .title = Verlopen token
credentials-conflict = Stuur één sleutel of één token, niet meer.
    .title = Tegenstrijdige aanmelding
forbidden = Dit mag u niet doen.
    .more = Hiervoor is het recht ‘{ $scope }’ nodig.
    .title = Niet toegestaan
host-unknown = Deze server antwoordt niet onder die naam.
    .title = Onbekende host
not-found = Op dit adres is niets te vinden.
    .title = Niet gevonden
entry-not-found = De index heeft geen item met deze naam.
    .title = Item niet gevonden
method-not-allowed = Dit adres ondersteunt die methode niet.
    .title = Methode niet toegestaan
rate-limited = Er zijn te veel verzoeken verstuurd.
    .title = Te veel verzoeken
queue-full = De dienst is bezet.
    .title = Dienst bezet
deadline = Het antwoord was niet op tijd klaar.
    .title = Tijd verstreken
draining = De dienst wordt gestopt of opnieuw gestart.
    .title = Dienst stopt
model-unavailable = Het model is op dit moment niet beschikbaar.
    .title = Model niet beschikbaar
engine-stuck = Het model heeft niet geantwoord en wordt opnieuw gestart.
    .title = Model antwoordt niet
client-gone = De verbinding werd verbroken voordat het antwoord klaar was.
    .title = Verbinding verbroken
index-full = De zoekindex is vol. Verwijder eerst items.
    .title = Index vol
index-unavailable = De zoekindex is op dit moment niet beschikbaar.
    .title = Index niet beschikbaar
model-refused = Het nieuwe model kon niet worden geladen. Het oude blijft in gebruik.
    .title = Model geweigerd
reload-running = Er wordt al een ander model geladen. Wacht tot dat klaar is.
    .title = Laden is al bezig
several-processes = Hier antwoorden meerdere processen en slechts één daarvan zou van model wisselen. Herstart ze een voor een met het nieuwe model.
    .title = Meerdere processen
internal = Er ging iets mis op de server. Het nummer van het verzoek helpt de oorzaak te vinden.
    .title = Interne fout
