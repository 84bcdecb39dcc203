retry-in =
    { $seconds ->
        [one] Tente novamente dentro de { $seconds } segundo.
       *[other] Tente novamente dentro de { $seconds } segundos.
    }

bad-request = Não foi possível compreender o pedido.
    .title = Pedido incorreto
invalid-field = O campo “{ $field }” está em falta ou tem um valor não permitido.
    .title = Campo inválido
too-many-items =
    { $limit ->
        [one] O campo “{ $field }” pode conter no máximo { $limit } elemento.
       *[other] O campo “{ $field }” pode conter no máximo { $limit } elementos.
    }
    .title = Demasiados elementos
body-too-large = O corpo do pedido é demasiado grande.
    .more = São aceites no máximo { $limit } B.
    .title = Pedido demasiado grande
body-timeout = O corpo do pedido não chegou a tempo.
    .title = Tempo do pedido esgotado
unsupported-media-type = Este tipo de conteúdo não é lido aqui.
    .more = Aceites: { $accepted }.
    .title = Tipo de conteúdo não suportado
base64-invalid = O campo “{ $field }” deve conter uma imagem em base64 ou como URI de dados.
    .title = Base64 inválido
url-refused = Os endereços nunca são consultados. Envie a própria imagem: como ficheiro, em base64 ou como URI de dados.
    .title = Endereço recusado
not-an-image = Os dados enviados estão danificados ou não são uma imagem.
    .title = Não é uma imagem
image-truncated = A imagem está danificada ou incompleta.
    .title = Imagem danificada
image-too-large = A imagem é demasiado grande. São aceites no máximo { $limit } px no total e { $side } px por lado.
    .title = Imagem demasiado grande
image-too-small = A imagem mede { $width } × { $height } px. Cada lado deve ter pelo menos { $least } px.
    .title = Imagem demasiado pequena
image-animated = A imagem é uma animação. Envie um único fotograma.
    .title = Imagem animada
image-too-complex = A imagem está gravada em demasiadas passagens. Grave-a de novo como JPEG ou PNG comum.
    .title = Imagem demasiado complexa
image-format = Este formato de imagem não é lido aqui.
    .more = Aceites: { $formats }.
    .title = Formato de imagem não suportado
text-empty = O campo “{ $field }” não pode estar vazio.
    .title = Texto vazio
text-too-long =
    { $limit ->
        [one] O campo “{ $field }” pode ter no máximo { $limit } carácter.
       *[other] O campo “{ $field }” pode ter no máximo { $limit } caracteres.
    }
    .title = Texto demasiado longo
text-too-many-tokens = O texto do campo “{ $field }” é demasiado longo para o modelo. Encurte-o.
    .title = Texto demasiado longo para o modelo
text-control = O campo “{ $field }” contém um carácter não permitido: { $character }.
    .title = Carácter não permitido
language-unknown = O modelo não fala esta língua.
    .more = Disponíveis: { $languages }.
    .title = Língua desconhecida
unauthorized = Este pedido precisa de uma chave ou de um token.
    .title = Não identificado
key-invalid = A chave não é válida.
    .title = Chave inválida
token-invalid = O token não é válido.
    .title = Token inválido
token-expired = O token expirou. Obtenha um novo.
    .title = Token expirado
credentials-conflict = Envie uma só chave ou um só token.
    .title = Credenciais em conflito
forbidden = Não tem permissão para fazer isto.
    .more = É necessária a permissão “{ $scope }”.
    .title = Não permitido
host-unknown = Este servidor não responde por esse nome.
    .title = Servidor desconhecido
not-found = Não há nada neste endereço.
    .title = Não encontrado
entry-not-found = O índice não tem nenhuma entrada com este nome.
    .title = Entrada não encontrada
method-not-allowed = Este endereço não suporta esse método.
    .title = Método não permitido
rate-limited = Foram enviados demasiados pedidos.
    .title = Demasiados pedidos
queue-full = O serviço está ocupado.
    .title = Serviço ocupado
deadline = A resposta não ficou pronta a tempo.
    .title = Tempo esgotado
draining = O serviço está a terminar ou a reiniciar.
    .title = Serviço a terminar
model-unavailable = O modelo não está disponível neste momento.
    .title = Modelo indisponível
engine-stuck = O modelo não respondeu e está a ser reiniciado.
    .title = O modelo não responde
client-gone = A ligação foi fechada antes de a resposta ficar pronta.
    .title = Ligação fechada
index-full = O índice de pesquisa está cheio. Elimine primeiro algumas entradas.
    .title = Índice cheio
index-unavailable = O índice de pesquisa não está disponível neste momento.
    .title = Índice indisponível
model-refused = Não foi possível carregar o novo modelo. O anterior continua em uso.
    .title = Modelo recusado
reload-running = Está a ser carregado outro modelo. Espere até terminar.
    .title = Carregamento já em curso
several-processes = Aqui respondem vários processos e só um deles mudaria de modelo. Reinicie-os um a um com o novo modelo.
    .title = Vários processos
internal = Algo correu mal no servidor. O número do pedido ajuda a encontrar a causa.
    .title = Erro interno
