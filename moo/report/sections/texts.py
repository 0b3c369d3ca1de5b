"""Words of the report, in English and Chinese."""

from collections.abc import Mapping

from moo.core.errors import InputError
from moo.core.messages import render
from moo.core.trial_record import ACCURACY, PENALTY, RISK

EN = {
    "lang": "en",
    "report": "Privacy report of a fine-tuning study",
    "recommended": "Recommended setting",
    "confirmed": "Confirmed on a fresh split of the users, trained anew: accuracy {accuracy}, membership risk {risk}, "
    "penalty {penalty}.",
    "not_confirmed": "NOT confirmed: on a fresh split of the users, trained anew, it breaks {limits}: accuracy "
    "{accuracy}, "
    "membership risk {risk}, penalty {penalty}.",
    "unconfirmed": "Not confirmed yet: the best of many noisy numbers is too good. `moo confirm` trains the front anew "
    "and this setting on a fresh split.",
    "permutation": "Permutation test of the attack, rows of the membership matrix: p = {p}.",
    "worst_tenth": "The attack's advantage on the most exposed tenth of the users: {risk}.",
    "attribute": "What the model's answers tell of {attribute}",
    "attribute_note": "H(P|M): an attack fitted on some users and measured on others, beyond imputing {attribute} "
    "from {known}. "
    "Leakage is the share of its entropy H(P) that the answers take away; it is not clipped, so 0 ± error is "
    "nothing. Members - "
    "others is the part that training on a person adds; the rest is what the population teaches, which DP does not "
    "bound. It is "
    "the best attack that was run, never all that there is. p: answers dealt out to other users, .05 at the least. "
    "Risk is the "
    "larger of leakage and membership advantage, never their sum.",
    "base_rate": "the base rate alone",
    "leakage": "leakage",
    "null_p": "p",
    "min_entropy": "min-entropy leakage, bits",
    "training_part": "members - others",
    "advantage": "membership advantage",
    "risk_reported": "risk",
    "risk_term": "which is",
    "by_attribute": "the attribute's",
    "risk_is_attribute": "the leakage of {attribute}, above the membership advantage",
    "by_membership": "membership's",
    "audit": "Audit of trial {trial}, {canaries} planted canaries ({kind}): epsilon is at least {low} at "
    "{confidence} where "
    "{claimed} is claimed; {verdict}.",
    "audit_fits": "nothing contradicts the claim, which an audit can refute and never prove",
    "audit_alarm": "the claim is contradicted",
    "audit_none": "No audit of trial {trial} yet: `moo audit --out DIR --trial {trial}` trains once more with planted "
    "canaries and sets a lower bound beside the claim.",
    "alternatives": "Alternatives",
    "alternatives_note": "Each with what it gives up and gains against {trial}. P is the probability that all limits "
    "hold, by "
    "the standard errors of risk and penalty.",
    "sure": "Its limits hold with probability {p}: the upper bound of its risk is {upper}, the limit {limit}.",
    "role": "alternative",
    "why": "reason",
    "trade": "what it costs",
    "risk_upper": "risk at most",
    "none": "No recommendation",
    "trial": "Trial",
    "status_quo": "Status quo",
    "status_quo_long": "Status quo (no DP, nothing masked)",
    "against": "{delta} against the status quo",
    "epsilon": "epsilon",
    "no_dp": "no DP",
    "not_published": "not published: an exact count reads private records",
    "masking": "masking",
    "depth": "adapted layers",
    "layers_dropped": "top {} left out",
    "queries": "{} queries",
    "rank": "LoRA rank",
    "rate": "learning rate",
    "halvings": "batch halvings",
    "hypervolume": "Hypervolume",
    "feasible": "feasible",
    "infeasible": "infeasible",
    "on_front": "on the front",
    "failed": "failed",
    "limit": "limit",
    "verdict": "verdict",
    ACCURACY: "accuracy",
    RISK: "membership risk",
    PENALTY: "compliance penalty",
    "p_front": "P(non-dominated)",
    "p_feasible": "P(feasible)",
    "figure_2d": "Accuracy and risk",
    "figure_2d_note": "Bars hold the sampling of customers and the noise of training. Those of accuracy are 95 % "
    "intervals; a bar of "
    "risk ends at its one-sided 95 % upper bound: where it passes the dashed line, the trial breaks the risk limit.",
    "figure_3d": "The front in three objectives",
    "figure_3d_note": "Drag to turn. Filled points are the feasible front, circles are dominated, crosses infeasible.",
    "figure_hv": "Hypervolume over trials",
    "figure_hv_note": "Share of the box up to the reference point (error .5, risk .5, penalty 1) that the feasible "
    "trials dominate. "
    "A curve that is still rising asks for more trials.",
    "figure_parallel": "Parameters and objectives",
    "table": "Every trial",
    "table_note": "± is one standard error; max_risk limits the upper bound of risk (one-sided 95 %). "
    "A trial that breaks a limit names it, the worst first.",
    "compliance": "Compliance: recommended against status quo",
    "compliance_note": "Rules are evidence for a person to judge, not a verdict of law. In each domain the rule with "
    "the largest score "
    "carries the contribution; the contributions add up to the penalty.",
    "rule": "rule",
    "article": "article",
    "measured": "measured",
    "score": "score",
    "contribution": "contribution",
    "cost": "What the search cost in privacy",
    "cost_line": "All trials together: composed epsilon {epsilon} at delta {delta}.",
    "data_line": "All studies on these data: composed epsilon {epsilon}. "
    "Head of the ledger {anchor}: kept here, it shows a tail that was cut later.",
    "trial_epsilon": "The recommended model alone: epsilon {epsilon} at delta {delta}, per {unit}.",
    "guarantee": "Guaranteed by the policy {policy}: epsilon {epsilon} at delta {delta}.",
    "group": "The unit is the record: for a person with {n} of them the model's statement is epsilon {epsilon}, "
    "delta {delta} "
    "(group privacy).",
    "group_unknown": " Nothing says how many records a person has, so rules about users are not assessed: name the "
    "column of the user, "
    "or declare one_record_per_user or max_records_per_user.",
    "claim": "DP claim: {claim}.",
    "colon": ": ",
    "stop": ".",
    "and": ", ",
    "aside": "{text} ({aside})",
    "data": "Data and threat model",
    "data_name": "data",
    "declaration": "declaration",
    "licence": "licence",
    "unit": "unit of privacy",
    "records": "records",
    "dropped": "dropped before anything else",
    "transformations": "preparation",
    "threat": "attacker",
    "gates": "gates",
    "no_gate": "no gate judged: the study sets gates = false; its penalty is judged as ever",
    "declared": "declared, not measured",
    "declared_by": "{said} ({signer}, {date})",
    "engine": "engine",
    "engine_bank": "shadows side by side on a cached trunk",
    "engine_opacus": "reference path, PEFT and Opacus, one shadow after another",
    "checks": "Checks of the instrument",
    "null": "Records that no shadow saw score AUC {auc} over {n} trials; an honest attack scores .5.",
    "majority": "majority class",
    "majority_line": "Always answering the most frequent class of the test users is right in {majority}.",
    "baseline": "Status quo {accuracy}; scikit-learn's logistic regression on the same frozen features {baseline}.",
    "too_alike": "Penalty and membership risk correlate at {r} over the trials: they are nearly one objective under "
    "two names.",
    "winner": "the winner",
    "made_alone": "How many trials there were, and how long they took, stays inside; {versions}.",
    "head_line": "Head of the ledger: {anchor}; kept here, it shows a tail that was cut later.",
    "made": "{trials} trials in {minutes} minutes, peak memory {memory} GiB; {versions}.",
    "legal": "This report is evidence for the people who decide. "
    "It does not say that data cannot be traced back to people, nor that a law is met.",
    "unknown": "not assessed",
}
ZH = {
    "lang": "zh-CN",
    "report": "微调研究的隐私报告",
    "recommended": "推荐设置",
    "confirmed": "在重新划分的用户上重新训练后得到确认：准确率 {accuracy}，成员推断风险 {risk}，合规罚分 {penalty}。",
    "not_confirmed": "未获确认：在重新划分的用户上重新训练后违反 {limits}："
    "准确率 {accuracy}，成员推断风险 {risk}，合规罚分 {penalty}。",
    "unconfirmed": "尚未确认：众多含噪数字中的最优者总是偏好。`moo confirm` 会重新训练前沿各点，"
    "并在重新划分的用户上训练本设置。",
    "permutation": "对成员矩阵各行的置换检验：p = {p}。",
    "worst_tenth": "攻击在暴露程度最高的十分之一用户上的优势：{risk}。",
    "attribute": "模型输出泄露了多少“{attribute}”",
    "attribute_note": "H(P|M)：攻击在一部分用户上拟合，在另一部分用户上测量，与仅凭{known}推断 {attribute} 相比较。"
    "泄露是其熵 H(P) 被模型输出消除的比例；未作截断，因此 0 ± 误差即无泄露。"
    "成员减非成员是训练本身带来的部分，其余是总体规律所揭示的，差分隐私不约束后者。"
    "这是所运行的最强攻击，而非全部泄露。p：把输出随机分给其他用户，最小为 0.05。"
    "风险取泄露与成员推断优势中较大者，不相加。",
    "base_rate": "基准比例",
    "leakage": "泄露",
    "null_p": "p",
    "min_entropy": "最小熵泄露（比特）",
    "training_part": "成员减非成员",
    "advantage": "成员推断优势",
    "risk_reported": "风险",
    "risk_term": "来自",
    "by_attribute": "属性",
    "risk_is_attribute": "为 {attribute} 的泄露，高于成员推断优势",
    "by_membership": "成员推断",
    "audit": "对试验 {trial} 的审计，植入 {canaries} 个金丝雀（{kind}）："
    "在 {confidence} 置信度下 ε 至少为 {low}，声明值为 {claimed}；{verdict}。",
    "audit_fits": "没有与声明相矛盾之处；审计只能推翻声明，不能证明声明",
    "audit_alarm": "声明被推翻",
    "audit_none": "试验 {trial} 尚未审计：`moo audit --out DIR --trial {trial}` 会植入金丝雀再训练一次，"
    "并在声明旁给出下界。",
    "alternatives": "其他选择",
    "alternatives_note": "各项均列出与{trial}相比的得失。P 为由风险与罚分的标准误得出的、全部上限均满足的概率。",
    "sure": "它满足各项上限的概率为 {p}：风险的置信上界为 {upper}，上限为 {limit}。",
    "role": "选择",
    "why": "理由",
    "trade": "得失",
    "risk_upper": "风险至多",
    "none": "没有可推荐的设置",
    "trial": "试验",
    "status_quo": "现状",
    "status_quo_long": "现状（无差分隐私，不脱敏）",
    "against": "与现状相比 {delta}",
    "epsilon": "ε",
    "no_dp": "无差分隐私",
    "not_published": "不公布：精确计数会读取私有记录",
    "masking": "脱敏级别",
    "depth": "适配层数",
    "layers_dropped": "去掉顶部 {} 层",
    "queries": "{} 个查询向量",
    "rank": "LoRA 秩",
    "rate": "学习率",
    "halvings": "批量减半次数",
    "hypervolume": "超体积",
    "feasible": "可行",
    "infeasible": "不可行",
    "on_front": "在前沿上",
    "failed": "失败",
    "limit": "上限",
    "verdict": "结论",
    ACCURACY: "准确率",
    RISK: "成员推断风险",
    PENALTY: "合规罚分",
    "p_front": "非支配概率",
    "p_feasible": "P（可行）",
    "figure_2d": "准确率与风险",
    "figure_2d_note": "误差线含客户抽样与训练噪声。准确率为 95 % 区间；风险的误差线止于单侧 95 % 置信上界："
    "越过虚线即超出风险上限。",
    "figure_3d": "三个目标的帕累托前沿",
    "figure_3d_note": "拖动可旋转。实心点为可行前沿，空心圆被支配，十字不可行。",
    "figure_hv": "超体积随试验的变化",
    "figure_hv_note": "可行试验所支配的、以参考点（错误率 0.5、风险 0.5、罚分 1）为界的空间占比。曲线仍在上升，"
    "说明值得再做试验。",
    "figure_parallel": "参数与目标",
    "table": "全部试验",
    "table_note": "± 为一个标准误；max_risk 限制的是风险的单侧 95 % 置信上界。超出上限的试验列出被违反的约束，"
    "最严重者在前。",
    "compliance": "合规：推荐设置与现状对比",
    "compliance_note": "规则是供人判断的证据，不是法律结论。每个领域由得分最高的规则承担罚分，各项贡献之和即为罚分。",
    "rule": "规则",
    "article": "条款",
    "measured": "实测值",
    "score": "得分",
    "contribution": "贡献",
    "cost": "搜索本身的隐私代价",
    "cost_line": "全部试验合计：组合 ε 为 {epsilon}，δ 为 {delta}。",
    "data_line": "同一数据上的全部研究：组合 ε 为 {epsilon}。账本头 {anchor}：记录于此，可发现日后被截去的尾部。",
    "trial_epsilon": "仅推荐模型：ε 为 {epsilon}，δ 为 {delta}，以{unit}为单位。",
    "guarantee": "策略 {policy} 的保证：ε 为 {epsilon}，δ 为 {delta}。",
    "group": "隐私单位是单条记录：对拥有 {n} 条记录的人，模型的保证为 ε {epsilon}、δ {delta}（群组隐私）。",
    "group_unknown": "没有任何信息说明一个人有多少条记录，因此与用户有关的规则未评估：请指定用户列，或声明 "
    "one_record_per_user "
    "或 max_records_per_user。",
    "claim": "差分隐私声明：{claim}。",
    "colon": "：",
    "stop": "。",
    "and": "、",
    "aside": "{text}（{aside}）",
    "data": "数据与威胁模型",
    "data_name": "数据",
    "declaration": "说明",
    "licence": "许可",
    "unit": "隐私单位",
    "records": "记录数",
    "dropped": "事先剔除",
    "transformations": "预处理",
    "threat": "攻击者",
    "gates": "门槛",
    "no_gate": "未判断任何门槛：研究设定 gates = false；惩罚分照常评判",
    "declared": "声明事项（未经测量）",
    "declared_by": "{said}（{signer}，{date}）",
    "engine": "训练引擎",
    "engine_bank": "影子模型在缓存的冻结底层上并行训练",
    "engine_opacus": "参考路径：PEFT 与 Opacus，逐个训练影子模型",
    "checks": "对测量本身的检验",
    "null": "没有任何影子模型见过的记录：{n} 次试验的 AUC 为 {auc}；公正的攻击应为 0.5。",
    "majority": "多数类基线",
    "majority_line": "始终回答测试用户中最常见的类别，准确率为 {majority}。",
    "baseline": "现状 {accuracy}；在相同冻结特征上的 scikit-learn 逻辑回归 {baseline}。",
    "too_alike": "各试验的罚分与成员推断风险的相关系数为 {r}：两者几乎是同一目标的两种说法。",
    "winner": "胜出的试验",
    "made_alone": "试验次数与用时不对外提供；{versions}。",
    "head_line": "账本头 {anchor}：记录于此，可发现日后被截去的尾部。",
    "made": "{trials} 次试验，用时 {minutes} 分钟，内存峰值 {memory} GiB；{versions}。",
    "legal": "本报告是供决策者使用的证据，不表示数据无法追溯到个人，也不表示已满足某项法律。",
    "unknown": "未评估",
}


def texts(lang: str) -> dict[str, str]:
    """Return all texts of a language.

    Raises:
        InputError: If the language is not "en" or "zh".
    """
    if lang not in ("en", "zh"):
        raise InputError("lang in ['en', 'zh'] must hold, but got lang={lang!r}.", lang=lang)
    return EN if lang == "en" else ZH


def say(text: str, t: Mapping[str, str]) -> str:
    """Return a text of a study in the language of a page.

    Args:
        text: A message or a plain text.
        t: Words of the page.
    """
    return render(text, "zh" if t["lang"].startswith("zh") else "en")


def sentence(text: str, t: Mapping[str, str]) -> str:
    """Return a text of a study as a sentence of a page."""
    shown = say(text, t)
    return f"{shown[:1].upper()}{shown[1:]}{t['stop']}"
