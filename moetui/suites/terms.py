"""What the words and signs of a report mean."""

from __future__ import annotations

from collections.abc import Mapping

from moetui.suites.names import studied
from moetui.suites.tables import Section

HEADING = "How to read this"

Terms = tuple[tuple[str, str], ...]

GENERAL: Terms = (
    ("seed", "the number or rule of the published experiment that is re-run, unchanged"),
    ("corrected", "the number or rule that answers the question; its section defines it"),
    ("95 % interval, [ ]", "by resampling documents unless a note says otherwise; — where there "
     "are too few of them, or where the published definition has none"),
    ("null [95 %]", "the value under chance: its mean and central 95 % over random draws"),
    ("p", "share of the random draws that are at least as extreme; never below 1 / (draws + 1), "
     "so 0.048 is the least that 20 draws can give and 0.001 that of 999"),
    ("q", "p adjusted for the number of tests in its family: false discovery rate, or "
     "family-wise where its section says so"),
    ("documents, tokens", "sizes; documents are what counts as independent, tokens of one are not"),
    ("n effective", "how many independent tokens carry as much information as those read"),
    ("random weights", "the null model: the same architecture with weights drawn anew, by its own "
     "initialiser or by that of the demo models' trainer; one draw of each"),
    ("apart, not apart, open", "whether the interval of the difference to random weights leaves "
     "out 0, or a sign-flip test over prompts or layers finds it (p ≤ 0.05); open where neither "
     "can be had. Many measures are compared and p is not adjusted for that"),
    ("(a), (b) …", "what to know about a value; written out under its table"),
    ("layer, depth", "decoder layers count from 0; depth is a layer's place in per cent"),
)  # fmt: skip

OF_SUITE: Mapping[str, Terms] = {
    "anatomy": (
        ("pseudo, native", "the published words for experts that share their weights or differ by "
         "one direction, and for experts that are independent of one another"),
        ("effective rank", "the fewest singular directions that hold 95 % of a matrix's energy"),
        ("gate, up, down", "the matrices of an expert: what it reads by (twice), what it writes "
         "by; fc1 and fc2 where there is no gate"),
        ("aligned", "the neurons of one expert in the order in which they lie closest to those of "
         "the other"),
        ("pairs across layers", "an expert of one layer beside one of another"),
    ),
    "attention_router": (
        ("H1, H2, H3", "attention dominates (over 85 %); carries most of the decision, not alone "
         "(50-80 %); does not dominate (under 50 %)"),
        ("ratio", "the published one: ‖W d‖ / (‖W e‖ + ‖W d‖), e the token's embedding, d all that "
         "earlier layers added, W the router's weight"),
        ("share of the logits' variance", "how much of what differs between tokens in a router's "
         "logits comes from a part; the shares sum to 1 and one of them can be negative"),
        ("mean of layers > 0", "over the layers read, without layer 0, as in the seed"),
        ("change of the sets", "1 − Jaccard: share of the experts chosen before or after that are "
         "not chosen both times; 0 the same experts, 1 none in common"),
        ("resampled, mean", "a part is replaced by what it was at a token of another document, or "
         "by its mean over tokens"),
        ("beyond random directions", "less what a random change of the same length does"),
        ("η² of the token's identity", "share of the variance of the logits that is foretold by "
         "the token alone, whatever its context"),
        ("between contexts", "the same token at the end of different texts, two by two"),
        ("shuffled context", "the same words before the token in another order"),
        ("sensitive cell", "a word and a layer where the top expert is not the same in all "
         "contexts"),
        ("total variation", "half the summed differences of the experts' weights, 0 to 1"),
    ),
    "merging": (
        ("weight cosine", "cosine of two experts' weights as vectors: as they lie, or aligned, "
         "the neurons of one in the order in which they lie closest to the other's"),
        ("output cosine", "of what two experts put out for the same inputs, chosen or not"),
        ("pairs across layers", "an expert of one layer beside one of another: what the measure "
         "itself makes alike"),
        ("ΔNLL", "nats a predicted token on evaluation documents, with the change less without"),
        ("equivalent, different, undecided", "the interval of ΔNLL within ±0.01 nats, beyond it, "
         "or neither"),
        ("merge", "the experts of a group become their mean, weighted by load, neurons aligned"),
        ("prune", "experts that cannot be chosen; REAP: those of the least mean g‖f‖"),
    ),
    "moe_routing_correlation": (
        ("task words", "words for the four operations, such as “add” or “plus”"),
        ("vocabulary alignment", "the published one: probability of the task's words when a layer "
         "is read through the model's own output head"),
        ("unsaid", "leaving out words that the prompt itself says"),
        ("raw lens, tuned lens", "a layer read through the output head as it is, or after a linear "
         "map fitted to bring that reading near the model's output"),
        ("log-odds over other tasks', nats", "log-odds of the words of the prompt's own task less "
         "the mean over all four tasks; 0: no difference"),
        ("KL to the output, nats", "how far a layer's reading is from the model's own output"),
        ("wording", "an operation in one template; what counts as a document in the larger set"),
        ("unseen", "asked in wordings and about numbers that were in no training prompt"),
        ("seen", "only the numbers are new"),
        ("selectivity", "seen accuracy less that of a control task: random labels of wordings"),
        ("bag of tokens", "the same probe of the prompt's tokens, without the model"),
        ("rho", "rank correlation of an expert's weight with the probability of task words"),
        ("discovered", "q at or below the level of its table"),
        ("McNemar", "exact test over the problems that one model solved and the other did not"),
    ),
    "interference": (
        ("g, f", "the weight of a chosen expert and what it puts out; a layer adds Σ g f"),
        ("I", "‖Σ g f‖² / Σ‖g f‖²: 1 where the outputs of a token's experts are at right angles, "
         "less where they cancel, more where they point the same way"),
        ("other experts", "the same weights and inputs, the experts of the layer dealt out anew"),
        ("own rule", "what the model does when told another number of experts a token"),
        ("picked, confirmed", "kinds of input that did better on calibration documents, and those "
         "of them that do so on evaluation documents too"),
        ("beyond the sum", "Δ_ij − Δ_i − Δ_j: what losing two experts costs beyond losing each"),
    ),
    "context_attention_routing": (
        ("target", "a token id that is compared with itself in several contexts"),
        ("attention and routing", "rank correlation of two tables: how far apart the attention, "
         "and the experts' weights, of one token are in every two of its contexts"),
        ("beyond", "without what length, the token before and the residual stream that enters the "
         "layer explain of both tables"),
        ("hidden state and routing", "the same of the residual stream that enters the layer: what "
         "attention has to be compared with"),
    ),
    "cold_experts": (
        ("f_e", "share of tokens that use an expert; k/E where all are used alike"),
        ("L4-E12", "expert 12 of decoder layer 4"),
        ("0.1×, 0.25×, 0.5×", "so many times the uniform share k/E"),
        ("ΔNLL", "nats a predicted token that the model loses by a change; below 0 it gains"),
        ("KL", "nats a token between the next-token distributions without and with a change"),
        ("none within 0.01?", "equivalent: the interval of ΔNLL lies within ± that margin; "
         "different: wholly beyond it; undecided: neither"),
        ("control experts", "others of the same layer, removed in the same way: random ones, and "
         "those of nearest frequency"),
    ),
    "attention_routing": (
        ("recall@k", "share of the k experts of a token that are among the k foretold"),
        ("gain, added", "recall less that of the table of token identities: by the predictor "
         "alone, and by predictor and table together"),
        ("any overlap, constant", "the published scores: one of k foretold experts is used; the "
         "same for always naming the most frequent ones"),
    ),
    "task_aware": (
        ("recall@m", "share of the k experts of a token that are among the m foretold"),
        ("gate, at the probe; one router early", "the later router itself, asked about the stream "
         "that leaves the probe's layer, or about the one that the router before it reads"),
        ("hit rate", "share of the experts asked for that are in memory when their layer begins"),
        ("over LRU, over LRU + token", "hit rate less that of LRU, and of LRU that fetches ahead "
         "what the token's identity foretells"),
        ("stall", "milliseconds that a token waits for experts, if everything foretold arrived in "
         "time; at worst: if nothing had"),
    ),
    "manipulation": (
        ("position", "the last token of a context: there the routing is looked at"),
        ("success@k", "share of contexts in which all experts of the target are among the k chosen "
         "at the position; the contexts are of other documents than those tokens were fitted to"),
        ("untouched", "the same without any change: how often the target is chosen anyway"),
        ("beyond random", "success less that of random tokens in the same places, or of random "
         "directions of the same length; paired context by context"),
        ("gain", "success less that of the untouched contexts; its null are other experts of the "
         "layer under the very same change"),
        ("rarest, random", "why an expert is a target: chosen least in its layer by calibration "
         "documents, or drawn at random"),
        ("pair formula", "the shortest change that makes the expert equal the k-th one; others may "
         "still stand in the way, and it is no bound: see pair bound"),
        ("pair bound", "the shortest change that makes the expert equal any chosen one"),
        ("attack, typical", "the swap that changes the chosen sets most within a bound of KL, and "
         "the mean of the swaps within it"),
        ("change of the sets", "1 − Jaccard: 0 the same experts, 1 none in common"),
    ),
    "circuits": (
        ("edge", "two experts of different layers that one token chooses together too often for "
         "chance; its section defines it"),
        ("lift", "how many times more often two experts meet than they would independently"),
        ("PMI, G²", "the logarithm of the lift; a likelihood ratio of the 2×2 table, which has no "
         "textbook distribution here"),
        ("beyond documents, beyond equal tokens", "more than after a shuffle of one layer's rows "
         "within documents, or among rows of the same token id"),
        ("beyond both, beyond token and document together", "more than after either of these "
         "shuffles; more also than after one among equal tokens of the same document"),
        ("held out", "learnt on calibration documents, scored on evaluation documents"),
        ("path", "edges of which each begins where the one before ends"),
        ("source, target", "the expert where an edge begins, and where it ends"),
        ("silenced", "the expert keeps its place and its output counts nothing"),
        ("pipeline, consistency", "the seed's: experts of all layers matched by correlation, and "
         "the mean of these correlations"),
    ),
    "generation": (
        ("step", "from one token of a text to the next"),
        ("overlap", "share of a token's experts that the token before it has too"),
        ("chance", "the overlap of two unrelated tokens of the same loads, Σ f²/k"),
        ("over equal tokens", "less what rows of the same token ids, taken from anywhere in the "
         "texts, show"),
        ("over the sequence", "less the mean overlap of all pairs of tokens of the same text"),
        ("handoff", "the seed's: the first expert of a layer is another one than a step before"),
        ("phase", "the seed's: a step unlike the union of three before; corrected: a step at which "
         "windows differ more than equal tokens let them"),
        ("decoding, prefill", "one token at a time from the cache; the whole text in one pass"),
        ("near tie", "the k-th and the next expert are closer than the numbers differ typically"),
        ("written texts, documents", "what the model wrote greedily, and what it was given to "
         "read"),
    ),
}  # fmt: skip


def section(suite: str) -> Section:
    """The terms of `suite`, and those that all reports share."""
    own = [term for name in studied(suite) for term in OF_SUITE.get(name, ())]
    terms = (*GENERAL, *dict.fromkeys(own))
    return Section(heading=HEADING, text=tuple(f"{term}: {meaning}." for term, meaning in terms))
