retry-in =
    { $seconds ->
        [one] Versuchen Sie es in einer Sekunde erneut.
       *[other] Versuchen Sie es in { $seconds } Sekunden erneut.
    }

bad-request = Die Anfrage ist nicht verständlich.
    .title = Ungültige Anfrage
invalid-field = Das Feld „{ $field }“ fehlt oder enthält einen unzulässigen Wert.
    .title = Ungültiges Feld
too-many-items =
    { $limit ->
        [one] Das Feld „{ $field }“ darf nur einen Eintrag enthalten.
       *[other] Das Feld „{ $field }“ darf höchstens { $limit } Einträge enthalten.
    }
    .title = Zu viele Einträge
body-too-large = Der Inhalt der Anfrage ist zu groß.
    .more = Höchstens { $limit } B werden angenommen.
    .title = Anfrage zu groß
body-timeout = Der Inhalt der Anfrage ist nicht rechtzeitig angekommen.
    .title = Zeit für die Anfrage abgelaufen
unsupported-media-type = Diese Art von Inhalt wird hier nicht gelesen.
    .more = Angenommen werden: { $accepted }.
    .title = Medientyp nicht unterstützt
base64-invalid = Das Feld „{ $field }“ muss ein Bild als Base64 oder als Data-URI enthalten.
    .title = Ungültiges Base64
url-refused = Adressen werden nie abgerufen. Senden Sie das Bild selbst: als Datei, als Base64 oder als Data-URI.
    .title = Adresse abgelehnt
not-an-image = Die gesendeten Daten sind beschädigt oder kein Bild.
    .title = Kein Bild
image-truncated = Das Bild ist beschädigt oder unvollständig.
    .title = Beschädigtes Bild
image-too-large = Das Bild ist zu groß. Angenommen werden höchstens { $limit } px insgesamt und { $side } px je Seite.
    .title = Bild zu groß
image-too-small = Das Bild misst { $width } × { $height } px. Jede Seite muss mindestens { $least } px haben.
    .title = Bild zu klein
image-animated = Das Bild ist eine Animation. Senden Sie ein einzelnes Bild daraus.
    .title = Animiertes Bild
image-too-complex = Das Bild ist in zu vielen Durchgängen gespeichert. Speichern Sie es neu als gewöhnliches JPEG oder PNG.
    .title = Bild zu aufwendig
image-format = Dieses Bildformat wird hier nicht gelesen.
    .more = Angenommen werden: { $formats }.
    .title = Bildformat nicht unterstützt
text-empty = Das Feld „{ $field }“ darf nicht leer sein.
    .title = Leerer Text
text-too-long =
    { $limit ->
        [one] Das Feld „{ $field }“ darf nur ein Zeichen haben.
       *[other] Das Feld „{ $field }“ darf höchstens { $limit } Zeichen haben.
    }
    .title = Text zu lang
text-too-many-tokens = Der Text im Feld „{ $field }“ ist für das Modell zu lang. Kürzen Sie ihn.
    .title = Text zu lang für das Modell
text-control = Das Feld „{ $field }“ enthält ein unzulässiges Zeichen: { $character }.
    .title = Unzulässiges Zeichen
language-unknown = Das Modell spricht diese Sprache nicht.
    .more = Verfügbar sind: { $languages }.
    .title = Unbekannte Sprache
unauthorized = Diese Anfrage braucht einen Schlüssel oder ein Token.
    .title = Nicht angemeldet
key-invalid = Der Schlüssel ist ungültig.
    .title = Ungültiger Schlüssel
token-invalid = Das Token ist ungültig.
    .title = Ungültiges Token
token-expired = Das Token ist abgelaufen. Holen Sie sich ein neues.
    .title = Abgelaufenes Token
credentials-conflict = Senden Sie einen Schlüssel oder ein Token, nicht mehrere.
    .title = Widersprüchliche Anmeldung
forbidden = Das dürfen Sie nicht.
    .more = Nötig ist die Berechtigung „{ $scope }“.
    .title = Nicht erlaubt
host-unknown = Unter diesem Namen antwortet dieser Server nicht.
    .title = Unbekannter Host
not-found = Unter dieser Adresse gibt es nichts.
    .title = Nicht gefunden
entry-not-found = Der Index hat keinen Eintrag mit diesem Namen.
    .title = Eintrag nicht gefunden
method-not-allowed = Diese Adresse unterstützt diese Methode nicht.
    .title = Methode nicht erlaubt
rate-limited = Es wurden zu viele Anfragen gesendet.
    .title = Zu viele Anfragen
queue-full = Der Dienst ist ausgelastet.
    .title = Dienst ausgelastet
deadline = Die Antwort wurde nicht rechtzeitig fertig.
    .title = Zeit abgelaufen
draining = Der Dienst wird beendet oder neu gestartet.
    .title = Dienst wird beendet
model-unavailable = Das Modell ist zurzeit nicht verfügbar.
    .title = Modell nicht verfügbar
engine-stuck = Das Modell hat nicht geantwortet und wird neu gestartet.
    .title = Modell antwortet nicht
client-gone = Die Verbindung wurde getrennt, bevor die Antwort fertig war.
    .title = Verbindung getrennt
index-full = Der Suchindex ist voll. Löschen Sie zuerst Einträge.
    .title = Index voll
index-unavailable = Der Suchindex ist zurzeit nicht verfügbar.
    .title = Index nicht verfügbar
model-refused = Das neue Modell konnte nicht geladen werden. Das alte bleibt in Gebrauch.
    .title = Modell abgelehnt
reload-running = Ein anderes Modell wird gerade geladen. Warten Sie, bis das fertig ist.
    .title = Laden läuft bereits
several-processes = Hier antworten mehrere Prozesse, und nur einer davon würde sein Modell wechseln. Starten Sie sie nacheinander mit dem neuen Modell neu.
    .title = Mehrere Prozesse
internal = Auf dem Server ist etwas schiefgegangen. Die Nummer der Anfrage hilft, die Ursache zu finden.
    .title = Interner Fehler
