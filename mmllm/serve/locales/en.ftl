retry-in =
    { $seconds ->
        [one] Try again in one second.
       *[other] Try again in { $seconds } seconds.
    }

bad-request = The request could not be understood.
    .title = Bad request
invalid-field = The field “{ $field }” is missing or has a value that is not allowed.
    .title = Invalid field
too-many-items =
    { $limit ->
        [one] The field “{ $field }” may hold one entry only.
       *[other] The field “{ $field }” may hold at most { $limit } entries.
    }
    .title = Too many entries
body-too-large = The request body is too large.
    .more = At most { $limit } B are accepted.
    .title = Request too large
body-timeout = The request body did not arrive in time.
    .title = Request timed out
unsupported-media-type = This type of content is not read here.
    .more = Accepted: { $accepted }.
    .title = Unsupported media type
base64-invalid = The field “{ $field }” must hold a picture as base64 or as a data URI.
    .title = Invalid base64
url-refused = Addresses are never fetched. Send the picture itself, as a file, as base64 or as a data URI.
    .title = Address refused
not-an-image = The data sent is damaged or is not a picture.
    .title = Not a picture
image-truncated = The picture is damaged or incomplete.
    .title = Damaged picture
image-too-large = The picture is too large. At most { $limit } px in all and { $side } px a side are accepted.
    .title = Picture too large
image-too-small = The picture measures { $width } × { $height } px. Each side must have at least { $least } px.
    .title = Picture too small
image-animated = The picture is an animation. Send a single frame.
    .title = Animated picture
image-too-complex = The picture is stored in too many passes. Save it again as a plain JPEG or PNG.
    .title = Picture too complex
image-format = This picture format is not read here.
    .more = Accepted: { $formats }.
    .title = Unsupported picture format
text-empty = The field “{ $field }” must not be empty.
    .title = Empty text
text-too-long =
    { $limit ->
        [one] The field “{ $field }” may have one character only.
       *[other] The field “{ $field }” may have at most { $limit } characters.
    }
    .title = Text too long
text-too-many-tokens = The text in the field “{ $field }” is too long for the model. Shorten it.
    .title = Text too long for the model
text-control = The field “{ $field }” contains a character that is not allowed: { $character }.
    .title = Character not allowed
language-unknown = The model does not speak this language.
    .more = Available: { $languages }.
    .title = Unknown language
unauthorized = This request needs a key or a token.
    .title = Not signed in
key-invalid = The key is not valid.
    .title = Invalid key
token-invalid = The token is not valid.
    .title = Invalid token
token-expired = The token has expired. Get a new one.
    .title = Expired token
credentials-conflict = Send one key or one token, not several.
    .title = Conflicting credentials
forbidden = You may not do this.
    .more = It needs the permission “{ $scope }”.
    .title = Not allowed
host-unknown = This server does not answer under that name.
    .title = Unknown host
not-found = There is nothing at this address.
    .title = Not found
entry-not-found = The index has no entry of this name.
    .title = Entry not found
method-not-allowed = This address does not support that method.
    .title = Method not allowed
rate-limited = Too many requests were sent.
    .title = Too many requests
queue-full = The service is busy.
    .title = Service busy
deadline = The answer was not ready in time.
    .title = Out of time
draining = The service is shutting down or restarting.
    .title = Service shutting down
model-unavailable = The model is not available at the moment.
    .title = Model unavailable
engine-stuck = The model did not answer and is being restarted.
    .title = Model not responding
client-gone = The connection was closed before the answer was ready.
    .title = Connection closed
index-full = The search index is full. Delete entries first.
    .title = Index full
index-unavailable = The search index is not available at the moment.
    .title = Index unavailable
model-refused = The new model could not be loaded. The old one stays in use.
    .title = Model refused
reload-running = Another model is being loaded. Wait until that is done.
    .title = Already loading
several-processes = Several processes serve here, and only one of them would change its model. Restart them one by one with the new model.
    .title = Several processes
internal = Something went wrong on the server. The request number helps to find the cause.
    .title = Internal error
