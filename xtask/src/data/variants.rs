//! Variant characters of the Complete Tang Poems that OpenCC leaves alone.
//!
//! Without this table the same word has two ids: 劒 beside 剑, 雁 beside 鴈.

/// The variants and their standard forms.
pub(crate) fn pairs() -> impl Iterator<Item = (char, char)> {
    PAIRS.split_whitespace().filter_map(|pair| {
        let mut characters = pair.chars();
        Some((characters.next()?, characters.next()?))
    })
}

/// Each pair is a variant and its standard form.
const PAIRS: &str = "\
    疎疏 踈疏 劒剑 劎剑 鴈雁 猨猿 慙惭 簷檐 鬬斗 鬭斗 徧遍 櫂棹 斾旆 媿愧 嬾懒 蘂蕊 橤蕊 堦阶 褭袅 \
    覩睹 臯皋 皐皋 廻回 飜翻 髪发 煖暖 秪只 秖只 暎映 歛敛 𬬻炉 桮杯 隣邻 檝楫 呌叫 竝并 倂并 燄焰 \
    牋笺 顦憔 顇悴 罇樽 荅答 鼇鳌 鏁锁 羇羁 覊羁 逈迥 鵶鸦 嚬颦 僊仙 讐仇 緜绵 隄堤 缾瓶 壻婿 蹔暂 \
    栢柏 粧妆 麤粗 麄粗 棃梨 鸎莺 筯箸 帬裙 碁棋 牓榜 懃勤 慇殷 牕窗 窓窗 窻窗 醆盏 藂丛 趂趁 彊强 \
    邨村 懽欢 悮误 飡餐 虵蛇 䜩宴 醼宴 椀碗 盌碗 蔕蒂 徴征 崄险 峩峨 輭软 汚污 効效 欵款 衞卫 諠喧 \
    怱匆 悤匆 忩匆 穉稚 犂犁 鼈鳖 姪侄 怳恍 嵒岩 嵓岩 毘毗 蜺霓 畧略 輙辄 湼涅 胷胸 廐厩 揜掩 遯遁 \
    筭算 蕚萼 轝舆 磵涧 旛幡 瓌瑰 塲场 勅敕 勑敕 恡吝 厓崖 賸剩 襃褒 椶棕 秔粳 稉粳 鷰燕 菓果 斵斫 \
    斲斫 頳赪 鳯凤 蠭蜂 嗁啼 隟隙 駮驳 撃击 覰觑 餧喂 碪砧 穽阱 羗羌 謌歌 臙胭 迺乃 廼乃 瑠琉 澁涩 \
    荳豆 陁陀 蟇蟆 翺翱 蛬蛩 倐倏 濶阔 駞驼 鰕虾 勗勖 刼劫 駈驱 緫总 惣总 敍叙 澘潸 氊毡 甎砖 塼砖 \
    竚伫 櫺棂 箒帚 鄽廛 顋腮 啣衔 躭耽 韈袜 韤袜 搥捶 驩欢 齩咬 糺纠 詶酬 醻酬 愬诉 箆篦 蹏蹄 呪咒 \
    餙饰 畊耕 狥徇 覔觅 婬淫 憇憩 壍堑 蜨蝶 袵衽 燿耀 趍趋 麞獐 帀匝 騣鬃 淛浙 齅嗅 柟楠 埜野 抝拗 \
    蒭刍 寃冤 顚颠 朶朵 煑煮 徃往 薫薰 騘骢 艣橹 潄漱 鞵鞋 搆构 濬浚 鉏锄 粃秕 㸃点 䂓规 㑹会 㝠冥 \
    巵卮 麏麇 麕麇 槩概 舘馆 甞尝 筍笋 笻筇 竒奇 寳宝 緑绿 渇渴 涙泪 戯戏 畨番 眞真 靑青 淸清 頼赖 \
    埽扫 祗只 妬妒 遰递";
