retry-in =
    { $seconds ->
        [one] Riprova tra { $seconds } secondo.
       *[other] Riprova tra { $seconds } secondi.
    }

bad-request = Non è stato possibile interpretare la richiesta.
    .title = Richiesta non corretta
invalid-field = Il campo «{ $field }» manca o contiene un valore non ammesso.
    .title = Campo non valido
too-many-items =
    { $limit ->
        [one] Il campo «{ $field }» può contenere al massimo { $limit } elemento.
       *[other] Il campo «{ $field }» può contenere al massimo { $limit } elementi.
    }
    .title = Troppi elementi
body-too-large = Il corpo della richiesta è troppo grande.
    .more = Sono accettati al massimo { $limit } B.
    .title = Richiesta troppo grande
body-timeout = Il corpo della richiesta non è arrivato in tempo.
    .title = Tempo della richiesta scaduto
unsupported-media-type = Questo tipo di contenuto non viene letto qui.
    .more = Accettati: { $accepted }.
    .title = Tipo di contenuto non supportato
base64-invalid = Il campo «{ $field }» deve contenere un’immagine in base64 o come URI di dati.
    .title = Base64 non valido
url-refused = Gli indirizzi non vengono mai consultati. Invia l’immagine stessa: come file, in base64 o come URI di dati.
    .title = Indirizzo rifiutato
not-an-image = I dati inviati sono danneggiati o non sono un’immagine.
    .title = Non è un’immagine
image-truncated = L’immagine è danneggiata o incompleta.
    .title = Immagine danneggiata
image-too-large = L’immagine è troppo grande. Sono accettati al massimo { $limit } px in tutto e { $side } px per lato.
    .title = Immagine troppo grande
image-too-small = L’immagine misura { $width } × { $height } px. Ogni lato deve avere almeno { $least } px.
    .title = Immagine troppo piccola
image-animated = L’immagine è un’animazione. Invia un solo fotogramma.
    .title = Immagine animata
image-too-complex = L’immagine è salvata in troppe passate. Salvala di nuovo come normale JPEG o PNG.
    .title = Immagine troppo complessa
image-format = Questo formato di immagine non viene letto qui.
    .more = Accettati: { $formats }.
    .title = Formato di immagine non supportato
text-empty = Il campo «{ $field }» non deve essere vuoto.
    .title = Testo vuoto
text-too-long =
    { $limit ->
        [one] Il campo «{ $field }» può avere al massimo { $limit } carattere.
       *[other] Il campo «{ $field }» può avere al massimo { $limit } caratteri.
    }
    .title = Testo troppo lungo
text-too-many-tokens = Il testo del campo «{ $field }» è troppo lungo per il modello. Accorcialo.
    .title = Testo troppo lungo per il modello
text-control = Il campo «{ $field }» contiene un carattere non ammesso: { $character }.
    .title = Carattere non ammesso
language-unknown = Il modello non parla questa lingua.
    .more = Disponibili: { $languages }.
    .title = Lingua sconosciuta
unauthorized = Questa richiesta ha bisogno di una chiave o di un token.
    .title = Non identificato
key-invalid = La chiave non è valida.
    .title = Chiave non valida
token-invalid = Il token non è valido.
    .title = Token non valido
token-expired = Il token è scaduto. Richiedine uno nuovo.
    .title = Token scaduto
credentials-conflict = Invia una sola chiave o un solo token.
    .title = Credenziali in conflitto
forbidden = Non è consentito farlo.
    .more = Serve il permesso «{ $scope }».
    .title = Non consentito
host-unknown = Questo server non risponde con quel nome.
    .title = Host sconosciuto
not-found = A questo indirizzo non c’è nulla.
    .title = Non trovato
entry-not-found = L’indice non ha una voce con questo nome.
    .title = Voce non trovata
method-not-allowed = Questo indirizzo non supporta quel metodo.
    .title = Metodo non consentito
rate-limited = Sono state inviate troppe richieste.
    .title = Troppe richieste
queue-full = Il servizio è occupato.
    .title = Servizio occupato
deadline = La risposta non è stata pronta in tempo.
    .title = Tempo scaduto
draining = Il servizio si sta arrestando o riavviando.
    .title = Servizio in arresto
model-unavailable = Il modello al momento non è disponibile.
    .title = Modello non disponibile
engine-stuck = Il modello non ha risposto e viene riavviato.
    .title = Il modello non risponde
client-gone = La connessione è stata chiusa prima che la risposta fosse pronta.
    .title = Connessione chiusa
index-full = L’indice di ricerca è pieno. Elimina prima qualche voce.
    .title = Indice pieno
index-unavailable = L’indice di ricerca al momento non è disponibile.
    .title = Indice non disponibile
model-refused = Non è stato possibile caricare il nuovo modello. Resta in uso il precedente.
    .title = Modello rifiutato
reload-running = È in corso il caricamento di un altro modello. Attendi che sia terminato.
    .title = Caricamento già in corso
several-processes = Qui rispondono più processi e solo uno di essi cambierebbe modello. Riavviali uno alla volta con il nuovo modello.
    .title = Più processi
internal = Qualcosa non ha funzionato sul server. Il numero della richiesta aiuta a trovare la causa.
    .title = Errore interno
