// What @ai-sdk/openai-compatible leaves out of its results, kept as providerMetadata: the citations of the answer and
// all that searches found.
function found(annotations, searchResults) {
  return { searchr1: { annotations: annotations ?? [], searchResults: searchResults ?? [] } };
}

export const foundExtractor = {
  extractMetadata: async ({ parsedBody }) => found(parsedBody.choices[0].message.annotations, parsedBody.search_results),
  createStreamExtractor() {
    let annotations;
    let searchResults;
    return {
      processChunk(chunk) {
        searchResults = chunk.search_results ?? searchResults;
        annotations = chunk.choices?.[0]?.delta?.annotations ?? annotations;
      },
      buildMetadata: () => found(annotations, searchResults),
    };
  },
};
